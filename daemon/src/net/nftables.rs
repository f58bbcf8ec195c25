//! Talks to nf_tables: the words of which a table of ours is made, and a transaction of them, which happens
//! as a whole or not at all.
//!
//! Numbers are those of include/uapi/linux/netfilter/nf_tables.h, nf_nat.h and netfilter_ipv4.h.

use std::io;

use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, InetHookNumber, ListAttribute, Lookup,
        Meta, MetaKey, NfTablesMessage, Operator, Payload, Register, RuleAttribute, RuleMessage, SetAttribute,
        SetElementAttribute, SetElementFlags, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
        TableMessage,
    },
    none::ControlMessage,
};
use rtnetlink::{
    packet_core::{
        DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER},
};

/// The subsystem of nfnetlink that a batch is for: `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NF_IP_PRI_NAT_SRC`: where source addresses are translated.
const PRIORITY_SOURCE_NAT: u32 = 100;
/// `NF_ACCEPT`, for what no rule decides.
const ACCEPT: u32 = 1;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
/// `NFTA_LOOKUP_FLAGS`: `NFT_LOOKUP_F_INV`, true for what is not in the set.
const NOT_IN: u32 = 1;
/// `NFTA_MASQ_FLAGS`.
const MASQUERADE_FLAGS: u16 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`. Ports chosen one after another collide when two processors choose at once.
const FULLY_RANDOM: u32 = 1 << 4;
/// Ends of intervals in one message: an attribute has at most 64 KiB, and an end has about 40 bytes.
const ENDS_PER_MESSAGE: usize = 1_000;
/// For the transaction, beyond what a socket has: some thousands of intervals.
const SEND_BUFFER: usize = 4 << 20;

/// A family of addresses in a table for both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    fn protocol(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Bytes of an address.
    fn length(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// What `nft list` shows addresses by: its TYPE_IPADDR, TYPE_IP6ADDR. The kernel keeps it for it.
    fn key_type(self) -> u32 {
        match self {
            Self::V4 => 7,
            Self::V6 => 8,
        }
    }
}

/// An address of a packet's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    Source,
    Destination,
}

impl Field {
    /// Where it is in the header: RFC 791 section 3.1, RFC 8200 section 3.
    fn offset(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Source, Family::V4) => 12,
            (Self::Destination, Family::V4) => 16,
            (Self::Source, Family::V6) => 8,
            (Self::Destination, Family::V6) => 24,
        }
    }
}

/// One end of an interval of addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// Address, in network order.
    pub(super) key: Vec<u8>,
    /// Whether it is the first address behind an interval, or the first of one.
    pub(super) closes: bool,
}

/// Changes that happen together, in order, to one table.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    table: &'a str,
    messages: Vec<(NfTablesMessage, u16)>,
    sets: u32,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(table: &'a str) -> Self {
        Self { table, messages: Vec::new(), sets: 0 }
    }

    /// Makes the table, if it is not there.
    pub(super) fn add_table(&mut self) {
        self.push(NfTablesMessage::NewTable(self.table()), NLM_F_CREATE);
    }

    /// Removes the table, which has to be there, with everything in it.
    pub(super) fn delete_table(&mut self) {
        self.push(NfTablesMessage::DeleteTable(self.table()), 0);
    }

    /// A set of intervals of addresses. `ends` ascend.
    pub(super) fn add_set(&mut self, name: &str, family: Family, ends: &[End]) {
        self.sets += 1;
        let attributes = vec![
            SetAttribute::Table(self.table.into()),
            SetAttribute::Name(name.into()),
            SetAttribute::Flags(SetFlags::Interval),
            SetAttribute::KeyType(family.key_type()),
            SetAttribute::KeyLen(family.length()),
            SetAttribute::Id(self.sets),
        ];
        self.push(NfTablesMessage::NewSet(SetMessage { attributes }), NLM_F_CREATE);
        for ends in ends.chunks(ENDS_PER_MESSAGE) {
            let attributes = vec![
                SetElementList::Table(self.table.into()),
                SetElementList::Set(name.into()),
                SetElementList::Elements(ends.iter().map(element).collect()),
            ];
            self.push(NfTablesMessage::NewSetElement(SetElementMessage { attributes }), NLM_F_CREATE);
        }
    }

    /// A chain that is asked about each connection's first packet when its way out is known.
    pub(super) fn add_source_nat_chain(&mut self, name: &str) {
        let hook = vec![Hook::Number(InetHookNumber::PostRouting.into()), Hook::Priority(PRIORITY_SOURCE_NAT)];
        let attributes = vec![
            ChainAttribute::Table(self.table.into()),
            ChainAttribute::Name(name.into()),
            ChainAttribute::Hook(hook),
            ChainAttribute::Policy(ACCEPT),
            ChainAttribute::Type("nat".into()),
        ];
        self.push(NfTablesMessage::NewChain(ChainMessage { attributes }), NLM_F_CREATE);
    }

    /// A rule at the end of a chain.
    pub(super) fn add_rule(&mut self, chain: &str, expressions: impl IntoIterator<Item = Expressions>) {
        let attributes = vec![
            RuleAttribute::Table(self.table.into()),
            RuleAttribute::Chain(chain.into()),
            RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
        ];
        self.push(NfTablesMessage::NewRule(RuleMessage { attributes }), NLM_F_CREATE | NLM_F_APPEND);
    }

    /// Makes the changes in the namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel said to the first one that it refused, and no change was made.
    pub(super) fn commit(self) -> io::Result<()> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // Without the right to it a socket's usual buffer has to do.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER)
            .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER));
        socket.send_to(&self.encoded(), &SocketAddr::new(0, 0), 0)?;
        // The kernel has done it when it has been sent, and said so: nothing to wait for.
        socket.set_non_blocking(true)?;
        loop {
            let (datagram, _) = socket.recv_from_full()?;
            if said(&datagram)? {
                return Ok(());
            }
        }
    }

    fn table(&self) -> TableMessage {
        TableMessage { attributes: vec![TableAttribute::Name(self.table.into())] }
    }

    fn push(&mut self, message: NfTablesMessage, flags: u16) {
        self.messages.push((message, flags));
    }

    /// All in one datagram, which is what makes them one transaction. Only the last change is answered if all goes
    /// well.
    fn encoded(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut number = 0;
        let mut put = |family, resource, inner: NetfilterMessageInner, flags| {
            let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, resource), inner);
            let mut message = NetlinkMessage::from(message);
            message.header.flags = NLM_F_REQUEST | flags;
            message.header.sequence_number = number;
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len(), 0);
            message.serialize(&mut bytes[start..]);
            number += 1;
        };
        let last = self.messages.len().saturating_sub(1);
        put(NetfilterProtoFamily::Unspec, SUBSYSTEM, ControlMessage::BatchBegin.into(), 0);
        for (index, (message, flags)) in self.messages.into_iter().enumerate() {
            let answer = if index == last { NLM_F_ACK } else { 0 };
            put(NetfilterProtoFamily::Inet, 0, message.into(), flags | answer);
        }
        put(NetfilterProtoFamily::Unspec, SUBSYSTEM, ControlMessage::BatchEnd.into(), 0);
        bytes
    }
}

/// Whether the messages of a datagram say that it is done.
fn said(datagram: &[u8]) -> io::Result<bool> {
    let mut rest = datagram;
    let mut done = false;
    while !rest.is_empty() {
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Error(_) => done = true,
            _ => {}
        }
        let length = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?.length() as usize;
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(done)
}

fn element(end: &End) -> ListAttribute<SetElementAttribute> {
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(end.key.clone()))];
    if end.closes {
        attributes.push(SetElementAttribute::Flags(SetElementFlags::IntervalEnd));
    }
    ListAttribute::Element(attributes)
}

/// Goes on for packets of a family.
pub(super) fn is_family(family: Family) -> [Expressions; 2] {
    [
        Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(MetaKey::Nfproto)]),
        Expressions::Cmp(vec![
            Cmp::SourceRegister(Register::Reg1),
            Cmp::Op(Operator::Equal),
            Cmp::Data(DataAttribute::Value(vec![family.protocol()])),
        ]),
    ]
}

/// Goes on for packets whose address is in a set, or not in it.
pub(super) fn is_in(field: Field, family: Family, set: &str, wanted: bool) -> [Expressions; 2] {
    let mut lookup = vec![Lookup::Set(set.into()), Lookup::SourceRegister(Register::Reg1)];
    if !wanted {
        lookup.push(Lookup::Flags(NOT_IN));
    }
    [
        Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(NETWORK_HEADER),
            Payload::Offset(field.offset(family)),
            Payload::Len(family.length()),
        ]),
        Expressions::Lookup(lookup),
    ]
}

/// Gives a connection the address of the interface that it leaves by.
pub(super) fn masquerade() -> Expressions {
    Expressions::Other {
        expression_type: "masq".into(),
        attributes: vec![DefaultNla::new(MASQUERADE_FLAGS, FULLY_RANDOM.to_be_bytes().into())],
    }
}
