//! A world and what happens in it, step by step. Nothing in it depends on a kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use policy::model::{Object, ObjectKey, PodKey};
use tests::{model::Says, packet};

/// Addresses of the node that the pods run on.
pub const OWN_NODE: [IpAddr; 2] = [host(false, 15), host(true, 15)];
/// Addresses of another node.
pub const OTHER_NODE: [IpAddr; 2] = [host(false, 14), host(true, 14)];

/// Most pods that run on the node at a time.
pub const MOST_LOCAL: usize = 6;
/// Most pods that run on the node, one after the other: each has an interface that no other had.
pub const MOST_STARTED: usize = 12;

/// The address numbered `number` of the network that all pods and nodes are in.
pub const fn host(v6: bool, number: u8) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number as u16))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
    }
}

/// A pod that runs on the node, whatever objects say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// Which.
    pub pod: PodKey,
    /// Its addresses: at most one of each family.
    pub ips: Vec<IpAddr>,
}

/// A packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// IANA protocol number.
    pub proto: u8,
    /// Who sends it, from which port. ICMP echo has the identifier there, whoever sends it.
    pub source: SocketAddr,
    /// To whom. 0 for protocols without ports.
    pub destination: SocketAddr,
    /// What it says about its connection.
    pub says: Says,
    /// Sent by a pod of the node to another one, and brought there by the node's stack.
    pub round: bool,
    /// Whether it is all of a packet.
    pub part: Part,
}

/// What of an IP packet something is. Numbers are identifications (RFC 791, 3.1; RFC 8200, 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All.
    Whole,
    /// The first fragment, which has the transport header.
    First(u32),
    /// A later one, which has none: what the packet says, and its ports, are not in it.
    Later(u32),
}

impl Packet {
    /// The ports by which its connection is found: an echo's asker has the identifier, the other one the
    /// number after it.
    pub fn ports(&self) -> [u16; 2] {
        let identifier = self.source.port();
        match self.says {
            Says::Echo { request: true } => [identifier, identifier.wrapping_add(1)],
            Says::Echo { request: false } => [identifier.wrapping_add(1), identifier],
            _ => [self.source.port(), self.destination.port()],
        }
    }

    /// Whether it can be the first of a connection (RFC 9293, 3.10.7; RFC 9260, 5.1; RFC 792).
    pub fn opens(&self) -> bool {
        use packet::{ACK, FIN, RST, SCTP_INIT, SYN};
        match &self.says {
            Says::Tcp(flags) => flags & (SYN | ACK | RST | FIN) == SYN,
            Says::Sctp(chunks) => chunks[0] == SCTP_INIT,
            Says::Echo { request } => *request,
            Says::Data => true,
        }
    }

    /// Whether it resets a TCP connection.
    pub fn resets(&self) -> bool {
        matches!(self.says, Says::Tcp(flags) if flags & packet::RST != 0)
    }
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// An object comes, or is another from now on.
    Apply(Object),
    /// An object goes. One of a pod that runs on the node stays what it was: the pod runs on.
    Delete(ObjectKey),
    /// A pod starts on the node. Not if it runs, another one has its address, or there is no room.
    Start(Local),
    /// A pod of the node stops.
    Stop(PodKey),
    /// The daemon goes and another one comes, on the maps that are there. Not while a pod runs whose
    /// object is gone: the new one knows less of it.
    Restart,
    /// The daemon clears away what nothing leads to any more.
    Collect,
    /// A packet is sent. Not if no pod of the node takes part.
    Send(Packet),
}

/// Pods, and what happens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scenario {
    /// Who runs on the node from the beginning.
    pub locals: Vec<Local>,
    /// In order.
    pub steps: Vec<Step>,
}

impl Scenario {
    /// How many packets are in it.
    pub fn packets(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Send(_))).count()
    }
}
