//! The text that clients of the Hubble API print in parentheses. They expect the spelling of the
//! reference: `TCP Flags: SYN, ACK`, `ICMPv4 EchoRequest`.

use crate::record::{FlowRecord, Icmp, protocol, tcp_flags};

/// One line about layer 4, of a lookup about layer 7.
pub(super) fn text(record: &FlowRecord) -> String {
    if let Some(lookup) = &record.dns {
        return super::lookup::summary(lookup);
    }
    match (record.protocol, record.icmp) {
        (protocol::TCP, _) => tcp(record.forward.tcp_flags),
        (protocol::UDP, _) => "UDP".to_owned(),
        (protocol::SCTP, _) => "SCTP".to_owned(),
        (protocol::ICMP, Some(icmp)) => format!("ICMPv4 {}", name(icmp, icmpv4(icmp.kind))),
        (protocol::ICMPV6, Some(icmp)) => format!("ICMPv6 {}", name(icmp, icmpv6(icmp.kind))),
        (protocol::VRRP, _) => "VRRP".to_owned(),
        (protocol::IGMP, _) => "IGMP".to_owned(),
        (other, _) => format!("IP protocol {other}"),
    }
}

fn tcp(bits: u8) -> String {
    let flags = tcp_flags(bits);
    let set: Vec<&str> = [
        (flags.syn, "SYN"),
        (flags.ack, "ACK"),
        (flags.rst, "RST"),
        (flags.fin, "FIN"),
        (flags.psh, "PSH"),
        (flags.urg, "URG"),
        (flags.ece, "ECE"),
        (flags.cwr, "CWR"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect();
    format!("TCP Flags: {}", set.join(", "))
}

fn name(icmp: Icmp, known: Option<&str>) -> String {
    let Icmp { kind, code } = icmp;
    match (known, code) {
        (Some(name), 0) => name.to_owned(),
        (Some(name), code) => format!("{name}({code})"),
        (None, code) => format!("{kind}({code})"),
    }
}

/// Registry "ICMP Type Numbers" of IANA, those not deprecated.
fn icmpv4(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0 => "EchoReply",
        3 => "DestinationUnreachable",
        5 => "Redirect",
        8 => "EchoRequest",
        9 => "RouterAdvertisement",
        10 => "RouterSolicitation",
        11 => "TimeExceeded",
        12 => "ParameterProblem",
        13 => "TimestampRequest",
        14 => "TimestampReply",
        _ => return None,
    })
}

/// Registry "ICMPv6 type Numbers" of IANA, those that pods meet.
fn icmpv6(kind: u8) -> Option<&'static str> {
    Some(match kind {
        1 => "DestinationUnreachable",
        2 => "PacketTooBig",
        3 => "TimeExceeded",
        4 => "ParameterProblem",
        128 => "EchoRequest",
        129 => "EchoReply",
        130 => "MLDv1MulticastListenerQueryMessage",
        133 => "RouterSolicitation",
        134 => "RouterAdvertisement",
        135 => "NeighborSolicitation",
        136 => "NeighborAdvertisement",
        137 => "Redirect",
        143 => "MLDv2MulticastListenerReportMessageV2",
        _ => return None,
    })
}
