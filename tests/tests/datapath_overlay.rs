//! What comes out of a tunnel, by a real one: who is believed to be who, and what becomes of those who only say so.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use aya::{
    maps::lpm_trie::Key,
    programs::{
        SchedClassifier, TcAttachType,
        tc::{self, NlOptions, TcAttachOptions},
    },
};
use daemon::datapath::load::program;
use datapath_abi::{
    addr::{Addr, AddrEntry, V4_PREFIX_BITS},
    endpoint::Endpoint,
    event::{EventKind, FlowEvent, Hook},
    identity::{CLASS_ANY, FIRST_SHARED, HOST, UNKNOWN},
    maps::{self, Scalar},
    overlay::{BELIEVED, Origin},
    policy::Direction,
    reason::DropReason,
};
use tests::{
    count::{Count, Counts},
    feature::Feature,
    host::{A, B, Family, Host, REMOTE, UPLINK, WORLD},
    lab::{At, Lab},
    netns::{Inside, Netns},
    packet::SYN,
    rules::{Rule, allow},
};

/// An identity of the other node's pods, and one that this node has not heard of.
const FRIEND: u32 = FIRST_SHARED + 17;
const UNHEARD: u32 = FIRST_SHARED + 18;
/// Where packets go to: nobody has it, so that nothing but the program at the device makes anything of them.
const NOBODY: [&str; 2] = ["10.244.0.200", "fd00:244::200"];
/// The nodes' addresses, this one's and the other's, and one of neither.
const HERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const FAR: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const STRANGE: [&str; 2] = ["192.0.2.66", "2001:db8::66"];
const PORTS: [u16; 2] = [40_000, 80];
/// How long a packet may take through two namespaces of this machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the device is made, without its name. A Geneve device sends a packet with the hop limit that its route says, 0 if it
/// says none.
const VXLAN: &str = "vxlan external dstport 8472";
const GENEVE: &str = "geneve external dstport 6081";

/// The tunnels that this kernel has.
fn tunnels() -> impl Iterator<Item = &'static str> {
    [VXLAN].into_iter().chain(Feature::Geneve.is_there_or_told().then_some(GENEVE))
}

/// Two nodes joined by a tunnel. The programs are at this one's device, and [`Lab`] looks at what they have noted.
struct Joined {
    here: Netns,
    far: Netns,
    device: u32,
    lab: Lab,
}

fn run(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect("iproute2 is there");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// How a route leads into the tunnel.
fn encap(outer: usize, number: u32, from: &str) -> String {
    let (family, limit) = [("ip", "ttl"), ("ip6", "hoplimit")][outer];
    format!("encap {family} id {number} {limit} 64 src {from}")
}

/// Not from below /sys/class/net, which is that of the namespace in which it was mounted.
fn index_of(link: &str) -> u32 {
    let said = run(&format!("ip -o link show {link}"));
    said.split(':').next().and_then(|number| number.parse().ok()).expect("an index")
}

impl Joined {
    fn new(tunnel: &str) -> Self {
        let device = format!("link add name vx mtu 1400 type {tunnel} udp6zerocsumrx\nlink set vx up\n");
        let lo = "link set lo up\n";
        let far = Netns::new(&format!("{device}{lo}")).expect("a namespace");
        let here = Netns::new(&format!("{device}{lo}")).expect("a namespace");
        // Made in one and moved into the other by a process that is in both, one after the other.
        {
            let _inside = far.enter().expect("it can be entered");
            run("ip link add wire0 type veth peer name wire1");
            let pid = here_pid(&here);
            run(&format!("ip link set wire1 netns {}", pid.id()));
            drop(pid);
            for (at, length) in [(0, 24), (1, 64)] {
                for address in [FAR[at], STRANGE[at]] {
                    let nodad = if at == 1 { "nodad" } else { "" };
                    run(&format!("ip addr add {address}/{length} dev wire0 {nodad}"));
                }
            }
            run("ip link set wire0 up");
            for host in [REMOTE, WORLD, A] {
                run(&format!("ip addr add {}/32 dev lo", host.v4));
                run(&format!("ip addr add {}/128 dev lo nodad", host.v6));
            }
        }
        let device = {
            let _inside = here.enter().expect("it can be entered");
            run(&format!("ip addr add {}/24 dev wire1", HERE[0]));
            run(&format!("ip addr add {}/64 dev wire1 nodad", HERE[1]));
            run("ip link set wire1 up");
            index_of("vx")
        };
        let mut lab = Lab::new();
        {
            let _inside = here.enter().expect("it can be entered");
            attach(&mut lab, program::FROM_OVERLAY, TcAttachType::Ingress);
        }
        let mut joined = Self { here, far, device, lab };
        for number in [BELIEVED, FRIEND] {
            joined.number(number);
        }
        joined.origin("10.244.9.0/24", FAR[0], Origin::ONLY_THERE);
        joined.origin("fd00:244:9::/64", FAR[0], Origin::ONLY_THERE);
        joined
    }

    fn number(&mut self, number: u32) {
        self.lab.programs.hash(maps::NUMBERS).insert(number, 1_u32, 0).expect("NUMBERS has room");
    }

    /// Packets from a range come from a node.
    fn origin(&mut self, range: &str, node: &str, flags: u32) {
        let (address, length) = range.split_once('/').expect("a range");
        let (address, node): (IpAddr, IpAddr) = (address.parse().expect("one"), node.parse().expect("one"));
        let bits = length.parse::<u32>().expect("a number") + if address.is_ipv4() { V4_PREFIX_BITS } else { 0 };
        let origin = Origin { node: node.into(), ifindex: self.device, flags };
        let key = Key::new(bits, Addr::from(address).octets());
        self.lab.programs.trie(maps::ORIGINS).insert(&key, origin, 0).expect("ORIGINS has room");
    }

    /// One packet from `host`, as the far side says, with a number, carried from an address to this node. Waits until
    /// the device has it.
    fn send(&self, host: &Host, at: Family, number: u32, from: &str) {
        let (inner, outer) = (usize::from(at == Family::V6), usize::from(from.contains(':')));
        let source = host.addr(at);
        let to = NOBODY[inner];
        let before = self.received();
        {
            let _inside = self.far.enter().expect("it can be entered");
            let encap = format!("{} dst {}", encap(outer, number, from), HERE[outer]);
            let mac = "02:00:00:00:00:77";
            run(&format!("ip neigh replace {to} lladdr {mac} dev vx nud permanent"));
            run(&format!("ip route replace {to} {encap} dev vx src {source}"));
            let socket = UdpSocket::bind(SocketAddr::new(source, 0)).expect("a socket");
            let to: IpAddr = to.parse().expect("an address");
            socket.send_to(b"who am I", SocketAddr::new(to, 9)).expect("it can be sent");
        }
        let began = Instant::now();
        while self.received() == before {
            assert!(began.elapsed() < PATIENCE, "nothing came out of the tunnel");
            std::thread::sleep(Duration::from_millis(2));
        }
        // Counted by the device, then given to the program, in one soft interrupt.
        std::thread::sleep(Duration::from_millis(20));
    }

    /// Packets that the device has brought.
    fn received(&self) -> u64 {
        let _inside = self.here.enter().expect("it can be entered");
        let said: serde_json::Value = serde_json::from_str(&run("ip -json -statistics link show vx")).expect("JSON");
        said[0]["stats64"]["rx"]["packets"].as_u64().expect("a count")
    }

    /// What is noted of an address.
    fn carried(&mut self, host: &Host, at: Family) -> Option<u32> {
        self.lab.programs.hash::<Addr, u32>(maps::CARRIED).get(&Addr::from(host.addr(at)), 0).ok()
    }

    /// How many packets were not from who they say.
    fn refused(&self) -> u64 {
        Counts::read(&self.lab.programs.ebpf)
            .since(&Counts::default())
            .of(Count::Dropped(Hook::ToPod, DropReason::OverlaySource))
    }

    /// What is told of the last of them.
    fn told(&mut self) -> FlowEvent {
        let events = self.lab.programs.events();
        let refused = events.into_iter().rfind(|event| event.reason == DropReason::OverlaySource as u8);
        refused.expect("a refused packet has an event")
    }

    fn forget(&mut self, host: &Host) {
        for at in [Family::V4, Family::V6] {
            let _ = self.lab.programs.hash::<Addr, AddrEntry>(maps::ADDRESSES).remove(&Addr::from(host.addr(at)));
        }
    }

    /// What the pod hears of a new connection from `host`, which comes in by the device.
    fn to_pod(&self) -> At {
        At::To(B, Host { ifindex: self.device, ..REMOTE })
    }
}

/// A process in a namespace, by which `ip link set netns` can name it. Ends when dropped.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn here_pid(here: &Netns) -> Sleeper {
    let _inside: Inside = here.enter().expect("it can be entered");
    Sleeper(Command::new("sleep").arg("60").spawn().expect("a process"))
}

fn attach(lab: &mut Lab, name: &str, place: TcAttachType) {
    let _ = tc::qdisc_add_clsact("vx");
    let program: &mut SchedClassifier =
        lab.programs.ebpf.program_mut(name).expect("the object has it").try_into().expect("a classifier");
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let id = program.attach_with_options("vx", place, options).expect("it can be attached");
    // It goes with the namespace, which is another than that in which this would take it off.
    std::mem::forget(program.take_link(id).expect("the link is there"));
}

#[test]
fn a_sender_is_known_by_its_number_before_its_address_is() {
    for tunnel in tunnels() {
        let mut joined = Joined::new(tunnel);
        joined.forget(&REMOTE);
        for at in [Family::V4, Family::V6] {
            joined.lab.isolate(&B, Direction::Ingress, &[Rule::identity(FRIEND, allow(1, 1))]);
            let syn = REMOTE.tcp(&B, at, PORTS, SYN);
            joined.lab.send(joined.to_pod(), &syn).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
            joined.send(&REMOTE, at, FRIEND, FAR[0]);
            assert_eq!(joined.carried(&REMOTE, at), Some(FRIEND), "{tunnel}");
            joined.lab.send(joined.to_pod(), &syn).passes().opens().with(|event| {
                assert_eq!(event.identity[0], FRIEND);
            });
            // The rules change: it is asked again, and still known.
            joined.lab.isolate(&B, Direction::Ingress, &[Rule::identity(FRIEND, allow(2, 1))]);
            joined.lab.send(joined.to_pod(), &syn).passes().bumps(Scalar::Redecided);
        }
        assert_eq!(joined.refused(), 0);
    }
}

#[test]
fn a_number_is_more_than_an_address_and_nothing_is_noted_that_the_address_says() {
    let mut joined = Joined::new(VXLAN);
    let at = Family::V4;
    // The address is that of a former pod.
    joined.send(&REMOTE, at, FRIEND, FAR[0]);
    assert_eq!(joined.carried(&REMOTE, at), Some(FRIEND));
    // The watch tells of it.
    joined.lab.address(&REMOTE, at, FRIEND, 0);
    joined.send(&REMOTE, at, FRIEND, FAR[0]);
    assert_eq!(joined.carried(&REMOTE, at), None);
    // It says nothing any more, as while the other node does not know its number.
    joined.lab.address(&REMOTE, at, REMOTE.identity, 0);
    joined.send(&REMOTE, at, FRIEND, FAR[0]);
    assert_eq!(joined.carried(&REMOTE, at), Some(FRIEND));
    joined.send(&REMOTE, at, 0, FAR[0]);
    assert_eq!(joined.carried(&REMOTE, at), None);
    assert_eq!(joined.refused(), 0);
}

#[test]
fn what_is_not_from_the_node_that_has_the_source_is_dropped() {
    for tunnel in tunnels() {
        forged_by(tunnel);
    }
}

fn forged_by(tunnel: &str) {
    let mut joined = Joined::new(tunnel);
    // An address of no node, of another node than the one that carries it, of this node's own pods, of the world.
    joined.origin("203.0.113.0/24", STRANGE[0], Origin::ONLY_THERE);
    let forged = [
        (&REMOTE, Family::V4, STRANGE[0]),
        (&REMOTE, Family::V6, STRANGE[0]),
        (&REMOTE, Family::V4, FAR[1]),
        (&REMOTE, Family::V4, STRANGE[1]),
        (&WORLD, Family::V4, FAR[0]),
        (&WORLD, Family::V6, FAR[0]),
        (&A, Family::V4, FAR[0]),
        (&A, Family::V6, FAR[0]),
    ];
    for (count, (host, at, from)) in (1..).zip(forged) {
        joined.send(host, at, FRIEND, from);
        assert_eq!(joined.refused(), count, "{} by {from}", host.name);
        assert_eq!(joined.carried(host, at), None, "{} by {from}", host.name);
        // As for every drop there is a record: of what it said, not of what it was taken for.
        let event = joined.told();
        let to: IpAddr = NOBODY[usize::from(at == Family::V6)].parse().expect("an address");
        assert_eq!(event.addr, [host.addr(at), to].map(Addr::from), "{} by {from}", host.name);
        assert_eq!((event.port[1], event.identity, event.hook), (9, [UNKNOWN; 2], Hook::ToPod as u8));
        assert_eq!((event.kind, event.packets), (EventKind::Dropped as u8, [1, 0]));
    }
    // It could be anybody who has sent it over IPv6, if that is where the node is.
    joined.origin("10.244.9.0/24", FAR[1], Origin::ONLY_THERE);
    joined.send(&REMOTE, Family::V4, FRIEND, FAR[1]);
    assert_eq!(joined.carried(&REMOTE, Family::V4), Some(FRIEND));
}

#[test]
fn numbers_that_are_not_shared_or_unheard_of_let_nobody_in() {
    let at = Family::V4;
    let mut joined = Joined::new(VXLAN);
    joined.forget(&REMOTE);
    let admit = [Rule::identity(FRIEND, allow(1, 1)), Rule::identity(A.identity, allow(2, 1))];
    joined.lab.isolate(&B, Direction::Ingress, &admit);
    let syn = REMOTE.tcp(&B, at, PORTS, SYN);
    // This node itself, a pod by this node's own number.
    for number in [HOST, A.identity] {
        joined.send(&REMOTE, at, number, FAR[0]);
        assert_eq!(joined.carried(&REMOTE, at), None, "{number}");
        joined.lab.send(joined.to_pod(), &syn).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
    }
    // A friend's address, and a number of which nothing is known: better nobody than the friend.
    joined.lab.address(&REMOTE, at, FRIEND, 0);
    joined.lab.send(joined.to_pod(), &syn).passes().opens();
    joined.lab.reset();
    joined.lab.isolate(&B, Direction::Ingress, &admit);
    joined.send(&REMOTE, at, UNHEARD, FAR[0]);
    assert_eq!(joined.carried(&REMOTE, at), Some(UNKNOWN));
    joined.lab.send(joined.to_pod(), &syn).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
    // A pod that has one of this node's own numbers until its shared one is told of is that pod.
    joined.lab.address(&REMOTE, at, A.identity, 0);
    joined.send(&REMOTE, at, UNHEARD, FAR[0]);
    assert_eq!(joined.carried(&REMOTE, at), None);
    joined.lab.send(joined.to_pod(), &syn).passes().opens();
    // Numbers mean something else here.
    joined.lab.programs.hash::<u32, u32>(maps::NUMBERS).remove(&BELIEVED).expect("it is there");
    joined.send(&REMOTE, at, FRIEND, FAR[0]);
    assert_eq!(joined.carried(&REMOTE, at), None);
    assert_eq!(joined.refused(), 0);
}

#[test]
fn another_nodes_pod_does_not_come_past_the_tunnel() {
    for at in [Family::V4, Family::V6] {
        let mut joined = Joined::new(VXLAN);
        let syn = REMOTE.tcp(&B, at, PORTS, SYN);
        assert_ne!(joined.device, UPLINK);
        joined.lab.send(At::To(B, REMOTE), &syn).drops(DropReason::OverlaySource, None);
        joined.lab.send(joined.to_pod(), &syn).passes().opens();
        // A node's own address may.
        joined.origin("203.0.113.7/32", FAR[0], 0);
        joined.origin("2001:db8::7/128", FAR[0], 0);
        joined.lab.send(At::To(B, WORLD), &WORLD.tcp(&B, at, PORTS, SYN)).passes().opens();
    }
}

/// The other half, and both together: what a pod sends bears its number, and its node takes nobody else for it.
#[test]
fn what_a_pod_sends_bears_its_number() {
    for (tunnel, outer) in tunnels().flat_map(|tunnel| [(tunnel, 0), (tunnel, 1)]) {
        for at in [Family::V4, Family::V6] {
            let mut joined = Joined::new(tunnel);
            for range in ["10.244.9.0/24", "fd00:244:9::/64"] {
                joined.origin(range, FAR[outer], Origin::ONLY_THERE);
            }
            joined.forget(&REMOTE);
            // The far node has the same programs with maps of its own, and the pod behind a veth.
            let mut sender = Lab::new();
            for number in [BELIEVED, FRIEND] {
                sender.programs.hash(maps::NUMBERS).insert(number, 1_u32, 0).expect("NUMBERS has room");
            }
            let pod = Netns::new("link set lo up\n").expect("a namespace");
            let veth = {
                let _inside = joined.far.enter().expect("it can be entered");
                attach(&mut sender, program::TO_OVERLAY, TcAttachType::Egress);
                for (inner, length) in [(REMOTE.v4.to_string(), 32), (REMOTE.v6.to_string(), 128)] {
                    run(&format!("ip addr del {inner}/{length} dev lo"));
                }
                run("ip link add host type veth peer name eth0");
                let sleeper = here_pid(&pod);
                run(&format!("ip link set eth0 netns {}", sleeper.id()));
                drop(sleeper);
                run("ip link set host up");
                run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
                let inner = usize::from(at == Family::V6);
                let mac = "02:00:00:00:00:77";
                run(&format!("ip neigh replace {} lladdr {mac} dev vx nud permanent", NOBODY[inner]));
                run(&format!(
                    "ip route replace {} {} dst {} dev vx",
                    NOBODY[inner],
                    encap(outer, 0, FAR[outer]),
                    HERE[outer]
                ));
                index_of("host")
            };
            {
                let _inside = pod.enter().expect("it can be entered");
                run(&format!("ip addr add {}/32 dev eth0", REMOTE.v4));
                run(&format!("ip addr add {}/128 dev eth0 nodad", REMOTE.v6));
                run("ip link set eth0 up");
                let inner = usize::from(at == Family::V6);
                run(&format!("ip route add {} dev eth0", NOBODY[inner]));
                let host = {
                    let _inside = joined.far.enter().expect("it can be entered");
                    run("ip -o link show host")
                        .split("link/ether ")
                        .nth(1)
                        .and_then(|rest| rest.split(' ').next())
                        .expect("a MAC")
                        .to_owned()
                };
                run(&format!("ip neigh replace {} lladdr {host} dev eth0 nud permanent", NOBODY[inner]));
            }
            let endpoint = Endpoint { ifindex: veth, identity: FRIEND, ..Endpoint::default() };
            let mut tell = |endpoint: Endpoint, expected: Option<u32>, what: &str| {
                sender.programs.array(maps::ENDPOINTS).set(4, endpoint, 0).expect("ENDPOINTS has the slot");
                sender.address(&REMOTE, at, endpoint.identity, 4);
                let before = joined.received();
                {
                    let _inside = pod.enter().expect("it can be entered");
                    let socket = UdpSocket::bind(SocketAddr::new(REMOTE.addr(at), 0)).expect("a socket");
                    let to: IpAddr = NOBODY[usize::from(at == Family::V6)].parse().expect("an address");
                    socket.send_to(b"who am I", SocketAddr::new(to, 9)).expect("it can be sent");
                }
                let began = Instant::now();
                while joined.received() == before {
                    assert!(began.elapsed() < PATIENCE, "nothing came out of the tunnel: {what}");
                    std::thread::sleep(Duration::from_millis(2));
                }
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(joined.carried(&REMOTE, at), expected, "{what}");
            };
            tell(endpoint, Some(FRIEND), "its own number");
            tell(Endpoint { identity: A.identity, ..endpoint }, None, "a number of that node alone");
            tell(endpoint, Some(FRIEND), "its own number again");
            tell(Endpoint { ifindex: veth + 1, ..endpoint }, None, "somebody else with the pod's address");
            assert_eq!(joined.refused(), 0);
        }
    }
}

/// So that the test above means something: any class would let it in.
#[test]
fn who_admits_anybody_admits_the_unheard() {
    let mut joined = Joined::new(VXLAN);
    joined.forget(&REMOTE);
    joined.lab.isolate(&B, Direction::Ingress, &[Rule::identity(CLASS_ANY, allow(1, 1))]);
    joined.send(&REMOTE, Family::V4, UNHEARD, FAR[0]);
    joined.lab.send(joined.to_pod(), &REMOTE.tcp(&B, Family::V4, PORTS, SYN)).passes().opens();
}
