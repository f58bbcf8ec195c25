//! Packets for tests: built from parts with right lengths and checksums, altered on purpose,
//! compared, dumped as pcap.
//!
//! Written from the RFCs and without the datapath's own parser, so that an error in one does
//! not hide in the other.

use std::{
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

/// IANA protocol numbers.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;
/// See [`ICMP`].
pub const ICMPV6: u8 = 58;
/// See [`ICMP`].
pub const SCTP: u8 = 132;

/// TCP flags, RFC 9293, section 3.1.
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

/// Tag of both ends of an SCTP association, unless a test says otherwise.
pub const SCTP_TAG: u32 = 7;
/// SCTP chunk types, RFC 9260, section 3.2.
pub const SCTP_DATA: u8 = 0;
/// See [`SCTP_DATA`].
pub const SCTP_INIT: u8 = 1;
/// See [`SCTP_DATA`].
pub const SCTP_INIT_ACK: u8 = 2;
/// See [`SCTP_DATA`].
pub const SCTP_ABORT: u8 = 6;
/// See [`SCTP_DATA`].
pub const SCTP_SHUTDOWN: u8 = 7;
/// See [`SCTP_DATA`].
pub const SCTP_COOKIE_ECHO: u8 = 10;
/// See [`SCTP_DATA`].
pub const SCTP_SHUTDOWN_COMPLETE: u8 = 14;

/// What follows the network header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// TCP without options.
    Tcp {
        /// Source and destination port.
        port: [u16; 2],
        /// Flags.
        flags: u8,
    },
    /// UDP.
    Udp {
        /// Source and destination port.
        port: [u16; 2],
    },
    /// SCTP with one chunk.
    Sctp {
        /// Source and destination port.
        port: [u16; 2],
        /// Type of the chunk.
        chunk: u8,
    },
    /// ICMP or ICMPv6, by the family of the addresses.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The four bytes after the checksum.
        rest: [u8; 4],
    },
    /// Anything else: the payload follows the network header at once.
    Raw {
        /// IANA protocol number.
        proto: u8,
    },
}

/// A fragment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification, which all parts of a packet share; IPv4 has room for 16 bits of it.
    pub id: u32,
    /// In units of eight bytes.
    pub offset: u16,
    /// More of them follow.
    pub more: bool,
}

/// One IP packet in an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet source and destination.
    pub mac: [[u8; 6]; 2],
    /// Source and destination address, of one family.
    pub addr: [IpAddr; 2],
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 options; padded to a multiple of four bytes with zeroes.
    pub options: Vec<u8>,
    /// IPv6 extension headers in order: number of the header, its bytes after "next header".
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Fragment fields: in the header of IPv4, in an extension header of IPv6.
    pub fragment: Option<Fragment>,
    /// Transport header.
    pub body: Body,
    /// SCTP: the verification tag (of INIT it is 0), and the initiate tag of INIT and INIT ACK.
    pub tags: [u32; 2],
    /// SCTP: the chunk's flags.
    pub chunk_flags: u8,
    /// What follows it.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A packet of `body` between two addresses. Panics when they are of different families.
    pub fn new(mac: [[u8; 6]; 2], addr: [IpAddr; 2], body: Body) -> Self {
        assert_eq!(addr[0].is_ipv4(), addr[1].is_ipv4(), "addresses of different families: {addr:?}");
        Self {
            mac,
            addr,
            ttl: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            body,
            tags: [SCTP_TAG; 2],
            chunk_flags: 0,
            payload: b"bulkhead".to_vec(),
        }
    }

    /// With another TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With IPv4 options.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// With one more IPv6 extension header; `rest` is what follows its "next header" byte.
    #[must_use]
    pub fn extension(mut self, number: u8, rest: &[u8]) -> Self {
        self.extensions.push((number, rest.to_vec()));
        self
    }

    /// As a fragment. One that is not the first begins with the payload.
    #[must_use]
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        self.part(0x1234, offset, more)
    }

    /// As a fragment of the packet with this identification.
    #[must_use]
    pub fn part(mut self, id: u32, offset: u16, more: bool) -> Self {
        self.fragment = Some(Fragment { id, offset, more });
        self
    }

    /// Whether the transport header can be found in it, by who reads all that RFC 8200 names but for
    /// routes that lead elsewhere first.
    pub fn is_readable(&self) -> bool {
        let readable = |(place, (number, rest)): (usize, &(u8, Vec<u8>))| match number {
            0 => place == 0,
            43 => rest[2] == 0,
            60 => true,
            _ => false,
        };
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
            && self.extensions.iter().enumerate().all(readable)
            && !self.options.iter().any(|option| matches!(option, 131 | 137))
            && !matches!(self.body, Body::Raw { proto: 59 })
    }

    /// SCTP with other tags, verification and initiate.
    #[must_use]
    pub fn tags(mut self, verification: u32, initiate: u32) -> Self {
        self.tags = [verification, initiate];
        self
    }

    /// SCTP with flags of its chunk.
    #[must_use]
    pub fn chunk_flags(mut self, flags: u8) -> Self {
        self.chunk_flags = flags;
        self
    }

    /// With another payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// From another MAC address.
    #[must_use]
    pub fn from_mac(mut self, mac: [u8; 6]) -> Self {
        self.mac[0] = mac;
        self
    }

    /// From another IP address.
    #[must_use]
    pub fn from_addr(mut self, addr: IpAddr) -> Self {
        self.addr[0] = addr;
        self
    }

    /// IANA protocol number of the body.
    pub fn proto(&self) -> u8 {
        match self.body {
            Body::Tcp { .. } => TCP,
            Body::Udp { .. } => UDP,
            Body::Sctp { .. } => SCTP,
            Body::Icmp { .. } if self.addr[0].is_ipv4() => ICMP,
            Body::Icmp { .. } => ICMPV6,
            Body::Raw { proto } => proto,
        }
    }

    /// Ports as a flow event shows them: ICMP type and code for ICMP.
    pub fn ports(&self) -> [u16; 2] {
        match self.body {
            Body::Tcp { port, .. } | Body::Udp { port } | Body::Sctp { port, .. } => port,
            Body::Icmp { kind, code, .. } => [kind.into(), code.into()],
            Body::Raw { .. } => [0, 0],
        }
    }

    /// TCP flags, 0 for other protocols.
    pub fn tcp_flags(&self) -> u8 {
        match self.body {
            Body::Tcp { flags, .. } => flags,
            _ => 0,
        }
    }

    /// The frame, every length and checksum right.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.mac[1]);
        frame.extend(self.mac[0]);
        match (self.addr[0], self.addr[1]) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend(0x0800u16.to_be_bytes());
                self.v4(src, dst, &mut frame);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend(0x86ddu16.to_be_bytes());
                self.v6(src, dst, &mut frame);
            }
            mixed => panic!("addresses of different families: {mixed:?}"),
        }
        frame
    }

    /// RFC 791, section 3.1.
    fn v4(&self, src: Ipv4Addr, dst: Ipv4Addr, frame: &mut Vec<u8>) {
        let transport = self.transport(&[&src.octets()[..], &dst.octets()[..]].concat());
        let header_len = 20 + self.options.len();
        let mut header = vec![0x40 | (header_len / 4) as u8, 0];
        header.extend(((header_len + transport.len()) as u16).to_be_bytes());
        // Don't fragment, or where it belongs.
        let (id, place) = match self.fragment {
            None => (0x1234, 0x4000),
            Some(Fragment { id, offset, more }) => (id as u16, (more as u16) << 13 | offset),
        };
        header.extend(id.to_be_bytes());
        header.extend(place.to_be_bytes());
        header.extend([self.ttl, self.proto(), 0, 0]);
        header.extend(src.octets());
        header.extend(dst.octets());
        header.extend(&self.options);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
        frame.extend(transport);
    }

    /// RFC 8200, sections 3 and 4.
    fn v6(&self, src: Ipv6Addr, dst: Ipv6Addr, frame: &mut Vec<u8>) {
        let mut extensions = self.extensions.clone();
        if let Some(Fragment { id, offset, more }) = self.fragment {
            let mut rest = vec![0];
            rest.extend((offset << 3 | more as u16).to_be_bytes());
            rest.extend(id.to_be_bytes());
            extensions.push((44, rest));
        }
        let transport = self.transport(&[&src.octets()[..], &dst.octets()[..]].concat());
        let mut payload = Vec::new();
        for (i, (_, rest)) in extensions.iter().enumerate() {
            payload.push(extensions.get(i + 1).map_or(self.proto(), |(number, _)| *number));
            payload.extend(rest);
        }
        payload.extend(transport);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.push(extensions.first().map_or(self.proto(), |(number, _)| *number));
        frame.push(self.ttl);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        frame.extend(payload);
    }

    /// Transport header and payload. `addresses` are those of the pseudo header.
    fn transport(&self, addresses: &[u8]) -> Vec<u8> {
        if self.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return self.payload.clone();
        }
        let mut out = Vec::new();
        match self.body {
            Body::Tcp { port, flags } => {
                out.extend(port[0].to_be_bytes());
                out.extend(port[1].to_be_bytes());
                out.extend([0, 0, 0, 1, 0, 0, 0, if flags & ACK != 0 { 1 } else { 0 }]);
                out.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                out.extend(&self.payload);
                self.fill_checksum(&mut out, addresses, 16);
            }
            Body::Udp { port } => {
                out.extend(port[0].to_be_bytes());
                out.extend(port[1].to_be_bytes());
                out.extend((8 + self.payload.len() as u16).to_be_bytes());
                out.extend([0, 0]);
                out.extend(&self.payload);
                self.fill_checksum(&mut out, addresses, 6);
            }
            Body::Sctp { port, chunk } => {
                out.extend(port[0].to_be_bytes());
                out.extend(port[1].to_be_bytes());
                let [verification, initiate] = self.tags;
                out.extend(if chunk == SCTP_INIT { 0 } else { verification }.to_be_bytes());
                out.extend([0; 4]);
                let mut value = Vec::new();
                if matches!(chunk, SCTP_INIT | SCTP_INIT_ACK) {
                    // Initiate tag, window, streams, first TSN (RFC 9260, section 3.3.2).
                    value.extend(initiate.to_be_bytes());
                    value.extend([0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1]);
                }
                value.extend(&self.payload);
                out.extend([chunk, self.chunk_flags]);
                out.extend((4 + value.len() as u16).to_be_bytes());
                out.extend(&value);
                let sum = crc32c(&out);
                // RFC 9260, appendix A: least significant byte first.
                out[8..12].copy_from_slice(&sum.to_le_bytes());
            }
            Body::Icmp { kind, code, rest } => {
                out.extend([kind, code, 0, 0]);
                out.extend(rest);
                out.extend(&self.payload);
                let sum = if self.addr[0].is_ipv4() { checksum(&[&out]) } else { self.pseudo(&out, addresses) };
                out[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            Body::Raw { .. } => out.extend(&self.payload),
        }
        out
    }

    fn fill_checksum(&self, out: &mut [u8], addresses: &[u8], at: usize) {
        let sum = self.pseudo(out, addresses);
        out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn pseudo(&self, segment: &[u8], addresses: &[u8]) -> u16 {
        let length = (segment.len() as u32).to_be_bytes();
        checksum(&[addresses, &length, &[0, 0, 0, self.proto()], segment])
    }
}

/// An ARP request or reply (RFC 826) for Ethernet and IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// Sender's MAC address, in the frame as well.
    pub mac: [u8; 6],
    /// Sender's IP address.
    pub sender: Ipv4Addr,
    /// Whom it asks for.
    pub target: Ipv4Addr,
}

impl Arp {
    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(self.mac);
        frame.extend(0x0806u16.to_be_bytes());
        frame.extend([0, 1, 8, 0, 6, 4]);
        frame.extend(self.operation.to_be_bytes());
        frame.extend(self.mac);
        frame.extend(self.sender.octets());
        frame.extend([0; 6]);
        frame.extend(self.target.octets());
        frame
    }
}

/// RFC 1071, over the concatenation of `parts`, each of which but the last has an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// CRC-32C, reflected, as SCTP uses it (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// The ICMP or ICMPv6 error about a frame, as the one with `mac` and `addr` of `from` sends it to the
/// frame's sender: type, code and the four bytes after the checksum, then as much of the IP packet as
/// `quote` says.
pub fn error_about(
    frame: &[u8],
    mac: [[u8; 6]; 2],
    from: IpAddr,
    message: [u8; 2],
    rest: [u8; 4],
    quote: usize,
) -> Packet {
    let ip = &frame[14..];
    let source = match from {
        IpAddr::V4(_) => IpAddr::from(<[u8; 4]>::try_from(&ip[12..16]).expect("four bytes")),
        IpAddr::V6(_) => IpAddr::from(<[u8; 16]>::try_from(&ip[8..24]).expect("sixteen bytes")),
    };
    let body = Body::Icmp { kind: message[0], code: message[1], rest };
    Packet::new(mac, [from, source], body).payload(&ip[..quote.min(ip.len())])
}

/// What a router makes of a frame: other MAC addresses, TTL or hop limit one less, the IPv4
/// header checksum computed anew.
pub fn routed(frame: &[u8], src: [u8; 6], dst: [u8; 6]) -> Vec<u8> {
    let mut out = frame.to_vec();
    out[0..6].copy_from_slice(&dst);
    out[6..12].copy_from_slice(&src);
    match u16::from_be_bytes([out[12], out[13]]) {
        0x0800 => {
            let header_len = usize::from(out[14] & 0x0f) * 4;
            out[22] -= 1;
            out[24..26].copy_from_slice(&[0, 0]);
            let sum = checksum(&[&out[14..14 + header_len]]);
            out[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        0x86dd => out[21] -= 1,
        other => panic!("no router forwards EtherType {other:#06x}"),
    }
    out
}

/// Where two frames differ, with the names of the fields; empty when they don't.
pub fn diff(wanted: &[u8], got: &[u8]) -> String {
    let mut text = String::new();
    if wanted.len() != got.len() {
        let _ = writeln!(text, "length: wanted {}, got {}", wanted.len(), got.len());
    }
    let v6 = wanted.get(12..14) == Some(&[0x86, 0xdd][..]);
    for (at, (w, g)) in wanted.iter().zip(got).enumerate() {
        if w != g {
            let _ = writeln!(text, "byte {at} ({}): wanted {w:#04x}, got {g:#04x}", field(at, v6));
        }
    }
    text
}

fn field(at: usize, v6: bool) -> &'static str {
    match (at, v6) {
        (0..6, _) => "Ethernet destination",
        (6..12, _) => "Ethernet source",
        (12..14, _) => "EtherType",
        (22, false) => "TTL",
        (24..26, false) => "IPv4 header checksum",
        (26..30, false) | (22..38, true) => "source address",
        (30..34, false) | (38..54, true) => "destination address",
        (21, true) => "hop limit",
        (34.., false) | (54.., true) => "after the network header",
        _ => "network header",
    }
}

/// Writes frames as a pcap file (draft-ietf-opsawg-pcap, link type 1), one second apart.
pub fn dump(path: &Path, frames: &[&[u8]]) -> io::Result<()> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        out.extend(word.to_le_bytes());
    }
    for (second, frame) in frames.iter().enumerate() {
        for word in [second as u32, 0, frame.len() as u32, frame.len() as u32] {
            out.extend(word.to_le_bytes());
        }
        out.extend(*frame);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_verify_to_zero() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let addr = [src.parse().unwrap(), dst.parse().unwrap()];
            for body in [Body::Tcp { port: [1, 2], flags: SYN }, Body::Udp { port: [1, 2] }] {
                let packet = Packet::new([[2; 6], [4; 6]], addr, body);
                let frame = packet.bytes();
                let (pseudo, segment) = if addr[0].is_ipv4() {
                    assert_eq!(checksum(&[&frame[14..34]]), 0);
                    (&frame[26..34], &frame[34..])
                } else {
                    (&frame[22..54], &frame[54..])
                };
                let tail = [0, 0, 0, packet.proto()];
                assert_eq!(checksum(&[pseudo, &(segment.len() as u32).to_be_bytes(), &tail, segment]), 0);
            }
        }
    }

    #[test]
    fn crc_is_that_of_the_check_string() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn routing_changes_ttl_checksum_and_addresses_alone() {
        let addr = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let before = Packet::new([[2; 6], [4; 6]], addr, Body::Udp { port: [1, 2] }).bytes();
        let after = routed(&before, [6; 6], [8; 6]);
        let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert!(changed.iter().all(|at| matches!(at, 0..12 | 22 | 24..26)), "{changed:?}");
        assert_eq!(checksum(&[&after[14..34]]), 0);
        assert!(diff(&before, &after).contains("TTL: wanted") || diff(&before, &after).contains("(TTL)"));
    }
}
