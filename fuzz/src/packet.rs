//! Hostile frames: what the parser says of them is in them, does not depend on what comes after
//! the last byte it has looked at, and can be written down and read again.

use std::cell::Cell;

use datapath_abi::{addr::Addr, conntrack::CtKey, reason::DropReason};
use datapath_ebpf::{
    csum, ct,
    parse::{self, Bytes, ETH_LEN, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Kind, Packet, Part, proto, sctp},
    uplink::{self, Look},
};

/// A frame of which only the first `reach` bytes can be read, as in the kernel, where the rest of a
/// packet may lie elsewhere. Remembers how far the parser has looked.
struct Frame<'a> {
    bytes: &'a [u8],
    reach: usize,
    seen: Cell<usize>,
}

impl<'a> Frame<'a> {
    fn new(bytes: &'a [u8], reach: usize) -> Self {
        Self { bytes, reach, seen: Cell::new(0) }
    }
}

impl<'a> Bytes for Frame<'a> {
    /// Exactly as long as was asked for: a read beyond it panics.
    type View = &'a [u8];

    fn view(&self, offset: usize, length: usize) -> Option<&'a [u8]> {
        let end = offset + length;
        let found = self.bytes.get(..self.reach)?.get(offset..end)?;
        self.seen.set(self.seen.get().max(end));
        Some(found)
    }

    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }
}

/// Runs the parser on a frame.
///
/// # Panics
///
/// On a defect.
pub fn frame(bytes: &[u8]) {
    gate(bytes);
    let Some(ethertype) = bytes.get(12..14).map(|two| u16::from_be_bytes([two[0], two[1]])) else { return };
    if ethertype == ETH_P_ARP {
        return arp(bytes);
    }
    let whole = Frame::new(bytes, bytes.len());
    let result = read(&whole, ethertype);
    let seen = whole.seen.get();

    // What lies beyond the bytes that were looked at has no say; without them there is no result.
    for reach in ETH_LEN..=bytes.len() {
        let cut = read(&Frame::new(bytes, reach), ethertype);
        let wanted = if reach < seen { Err(DropReason::TruncatedHeader) } else { result };
        assert!(
            cut == wanted || lacks_tag(&cut, &result),
            "of {} bytes {reach} can be read, {seen} were: {cut:?}, not {wanted:?}",
            bytes.len()
        );
    }
    // Cut for good: the lengths in the headers are noticed as well.
    for length in ETH_LEN..bytes.len() {
        let cut = &bytes[..length];
        if let Ok(found) = read(&Frame::new(cut, length), ethertype) {
            let cut = Ok(found);
            assert!(cut == result || lacks_tag(&cut, &result), "{length} of {} bytes: {cut:?}", bytes.len());
        }
    }
    if let Ok((packet, at)) = result {
        about(&packet, bytes, ethertype);
        if packet.kind == Kind::IcmpError {
            quoted(&packet, at, bytes);
        }
    }
}

/// Whether what was read is a whole INIT of SCTP without the tag that it offers, the last that there is to read.
fn lacks_tag(cut: &Result<(Packet, usize), DropReason>, whole: &Result<(Packet, usize), DropReason>) -> bool {
    let Ok((packet, at)) = *whole else { return false };
    let is_init = packet.proto == proto::SCTP && packet.flags == sctp::INIT && packet.part == Part::Whole;
    is_init && *cut == Ok((Packet { id: 0, ..packet }, at))
}

/// The packet, and the place of its transport header where it is far; all of it as the programs read it.
fn read(frame: &Frame<'_>, ethertype: u16) -> Result<(Packet, usize), DropReason> {
    let mut packet = Packet::EMPTY;
    parse::ip(frame, ethertype, &mut packet)?;
    let mut at = ETH_LEN + if packet.v4 { 20 } else { 40 };
    if packet.kind == Kind::Rare {
        at = parse::rare(frame, &mut packet)?;
        assert_ne!(packet.kind, Kind::Rare, "the second look is the last");
        // No part of another packet, and no tag: nobody asks for it.
        if packet.part == Part::Whole && (packet.proto != proto::SCTP || packet.kind == Kind::Extension) {
            packet.id = 0;
        }
    }
    Ok((packet, at))
}

/// What an ICMP error quotes names its receiver, and is in the packet.
fn quoted(packet: &Packet, at: usize, bytes: &[u8]) {
    let quote = |reach: usize| {
        let mut key = CtKey::default();
        parse::quote(&Frame::new(bytes, reach), at, packet, &mut key).map(|quoted| (key, quoted))
    };
    let whole = quote(bytes.len());
    for reach in ETH_LEN..bytes.len() {
        let cut = quote(reach);
        assert!(cut.is_none() || cut == whole, "{reach} bytes of {}", bytes.len());
    }
    let Some((key, quoted)) = whole else { return };
    let sent_to = usize::from(quoted.greater);
    assert_eq!(key.addr[1 - sent_to], packet.addr[1], "the error goes to whom has sent what it quotes");
    assert_eq!(quoted.by_end, key.addr[sent_to] == packet.addr[0]);
    assert_eq!(key.addr.map(|addr| addr.is_v4()), [packet.v4; 2]);
}

/// What holds of any packet that was read.
fn about(packet: &Packet, bytes: &[u8], ethertype: u16) {
    let Packet { addr, port, proto, flags, icmp, kind, v4, ttl, part, id: _, pad, end, transport, quoted } = *packet;
    assert_eq!((pad, end, transport, quoted), ([0; 3], 0, 0, 0), "keys are made of it as it is");
    assert_eq!(v4, ethertype == ETH_P_IP);
    assert_eq!(addr.map(|addr| addr.is_v4()), [v4, v4], "families do not mix");
    assert!(kind != Kind::Fragment || part == Part::Later);
    assert!(part != Part::Later || matches!(kind, Kind::Fragment | Kind::Extension), "{kind:?} of a later fragment");
    let network = &bytes[ETH_LEN..];
    let (source, destination, hops) = if v4 { (12..16, 16..20, 8) } else { (8..24, 24..40, 7) };
    let octets = |at: usize| addr[at].octets()[if v4 { 12 } else { 0 }..].to_vec();
    assert_eq!([octets(0), octets(1)], [network[source].to_vec(), network[destination].to_vec()]);
    assert_eq!(ttl, network[hops]);
    if part == Part::Later || kind == Kind::Extension {
        assert_eq!((port, flags), ([0, 0], 0), "nothing is known of what comes later");
        let offset = u16::from_be_bytes(icmp);
        assert!(offset % 8 == 0 && (offset != 0) == (part == Part::Later), "{offset} bytes into its packet");
    }
    if flags != 0 {
        assert!([proto::TCP, proto::SCTP].contains(&proto));
    }
    if icmp != [0, 0] && part != Part::Later {
        assert!([proto::ICMP, proto::ICMPV6, proto::SCTP].contains(&proto));
        assert!(proto == proto::SCTP || v4 == (proto == proto::ICMP));
    }
    same_key(packet);
    if v4 {
        forwarded(network);
    }
    // Written down and read again it is the same packet.
    let again = write(packet);
    let found = read(&Frame::new(&again, again.len()), ethertype).map(|(packet, _)| packet);
    assert_eq!(found, Ok(*packet), "written as {again:02x?}");
}

/// Both directions of a connection have one key, and tell themselves apart.
fn same_key(packet: &Packet) {
    let back = Packet { addr: [packet.addr[1], packet.addr[0]], port: [packet.port[1], packet.port[0]], ..*packet };
    let mut keys = [CtKey::default(); 2];
    let greater = [ct::key(packet, &mut keys[0]), ct::key(&back, &mut keys[1])];
    assert_eq!(keys[0], keys[1]);
    let itself = packet.addr[0] == packet.addr[1] && packet.port[0] == packet.port[1];
    assert_eq!(greater[0] != greater[1], !itself);
    let high = usize::from(greater[0]);
    assert_eq!([keys[0].addr[high], keys[0].addr[1 - high]], packet.addr);
}

/// A right header checksum is right after a hop (RFC 1624), a wrong one stays wrong.
fn forwarded(network: &[u8]) {
    let header = &network[..20];
    // Options are part of the sum, and stay as they are.
    let length = usize::from(header[0] & 0x0f) * 4;
    let Some(header) = network.get(..length) else { return };
    if header[8] == 0 {
        return;
    }
    let mut after = header.to_vec();
    after[8] -= 1;
    let checksum = csum::after_ttl_decrement(u16::from_be_bytes([header[10], header[11]]));
    after[10..12].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(sum(header), sum(&after));
}

/// Ones' complement sum of a whole header: 0xffff if its checksum is right (RFC 1071). Zero and
/// 0xffff are one number.
fn sum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if sum == 0 { 0xffff } else { sum as u16 }
}

/// A short frame of which a parser must say this.
fn write(packet: &Packet) -> Vec<u8> {
    let Packet {
        addr,
        port: _,
        proto,
        flags: _,
        icmp,
        kind: _,
        v4,
        ttl,
        part,
        id,
        pad: _,
        end: _,
        transport: _,
        quoted: _,
    } = *packet;
    let mut frame = vec![0; 12];
    let transport = transport(packet);
    if v4 {
        // A loose source route, if it has to be unreadable.
        let options: &[u8] = if packet.kind == Kind::Extension { &[131, 3, 4, 0] } else { &[] };
        let length = 20 + (options.len() + transport.len()) as u16;
        let fragment: u16 = match part {
            Part::Whole => 0,
            Part::First => 0x2000,
            Part::Later => u16::from_be_bytes(icmp) >> 3,
        };
        frame.extend(ETH_P_IP.to_be_bytes());
        frame.extend([0x45 + (options.len() / 4) as u8, 0]);
        for word in [length, id as u16, fragment] {
            frame.extend(word.to_be_bytes());
        }
        frame.extend([ttl, proto, 0, 0]);
        for addr in addr {
            frame.extend(&addr.octets()[12..]);
        }
        frame.extend(options);
    } else {
        let (next, extensions) = extensions(packet);
        frame.extend(ETH_P_IPV6.to_be_bytes());
        let [high, low] = ((extensions.len() + transport.len()) as u16).to_be_bytes();
        frame.extend([0x60, 0, 0, 0, high, low, next, ttl]);
        for addr in addr {
            frame.extend(addr.octets());
        }
        frame.extend(extensions);
    }
    frame.extend(transport);
    frame
}

/// IPv6 extension headers, and the number of the first.
fn extensions(packet: &Packet) -> (u8, Vec<u8>) {
    let Packet { proto, icmp, kind, part, id, .. } = *packet;
    let fragment = |next: u8| {
        let word = if part == Part::Later { u16::from_be_bytes(icmp) } else { u16::from(part == Part::First) };
        [vec![next, 0], word.to_be_bytes().to_vec(), id.to_ne_bytes().to_vec()].concat()
    };
    // "No next header" is one that cannot be read on.
    const NONE: u8 = 59;
    match (kind, proto) {
        (Kind::Extension, 44) => (44, fragment(NONE)),
        (Kind::Extension, 0 | 43 | 60) if part == Part::First => {
            (proto, [vec![44, 0, 0, 0, 0, 0, 0, 0], fragment(NONE)].concat())
        }
        (Kind::Extension, 0 | 43 | 60) => (proto, vec![NONE, 0, 0, 0, 0, 0, 0, 0]),
        (Kind::Extension, _) => (proto, Vec::new()),
        // Listener reports are known by the router alert before them.
        (Kind::Neighbour, proto::ICMPV6) if matches!(icmp[0], 130..=132 | 143) => {
            (0, vec![proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0])
        }
        _ if part != Part::Whole => (44, fragment(proto)),
        _ => (proto, Vec::new()),
    }
}

fn transport(packet: &Packet) -> Vec<u8> {
    let Packet {
        addr: _,
        port,
        proto,
        flags,
        icmp,
        kind,
        v4,
        ttl: _,
        part,
        id,
        pad: _,
        end: _,
        transport: _,
        quoted: _,
    } = *packet;
    if part == Part::Later || kind == Kind::Extension {
        return Vec::new();
    }
    match proto {
        proto::TCP => {
            let mut header = ports(port);
            header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
            header
        }
        proto::UDP => [ports(port), vec![0, 8, 0, 0]].concat(),
        proto::SCTP => {
            // The tag that INIT offers is its own, and it bears none; of a fragment none is known.
            let tag = if part == Part::Whole { id.to_ne_bytes() } else { [0; 4] };
            let (bears, offers) = if flags == sctp::INIT { ([0; 4], tag) } else { (tag, [0; 4]) };
            let chunk = [flags, icmp[1], 0, 8];
            [&ports(port)[..], &bears, &[0; 4], &chunk, &offers].concat()
        }
        proto::ICMP | proto::ICMPV6 if v4 == (proto == proto::ICMP) => {
            // An answer's identifier is the asker's port, which is the destination.
            let answer = matches!((proto, icmp[0]), (proto::ICMP, 0) | (proto::ICMPV6, 129));
            let identifier = (if answer { port[1] } else { port[0] }).to_be_bytes();
            vec![icmp[0], icmp[1], 0, 0, identifier[0], identifier[1], 0, 0]
        }
        // A first fragment has something in it.
        _ => vec![0; 8],
    }
}

fn ports(port: [u16; 2]) -> Vec<u8> {
    port.map(u16::to_be_bytes).concat()
}

/// ARP: the sender is in the packet, at the places of RFC 826.
/// What the node's gate says of it, which does not depend on what it has not looked at either.
fn gate(bytes: &[u8]) {
    let judge = |reach: usize| {
        let frame = Frame::new(bytes, reach);
        let mut look = Look::EMPTY;
        (uplink::judge(&frame, &mut look, |_| false), look, frame.seen.get())
    };
    let (said, look, seen) = judge(bytes.len());
    for reach in seen..bytes.len() {
        assert_eq!(judge(reach), (said, look, seen), "of {} bytes {reach} can be read", bytes.len());
    }
    let everybody = uplink::judge(&Frame::new(bytes, bytes.len()), &mut { Look::EMPTY }, |source| {
        assert_eq!(source, look.addr[0]);
        true
    });
    assert!(everybody == Err(DropReason::DenyList) || everybody == said, "{everybody:?}, {said:?}");
}

fn arp(bytes: &[u8]) {
    for reach in ETH_LEN..=bytes.len() {
        let Ok(found) = parse::arp(&Frame::new(bytes, reach)) else { continue };
        assert!(reach >= ETH_LEN + 28);
        let body = &bytes[ETH_LEN..];
        assert_eq!(found.mac, body[8..14]);
        assert_eq!(found.addr, Addr::from_v4([body[14], body[15], body[16], body[17]]));
    }
}

/// One frame of each kind: what `write` can make, and ARP.
pub fn seeds() -> Vec<Vec<u8>> {
    let v4 = [Addr::from_v4([10, 244, 0, 11]), Addr::from_v4([10, 244, 0, 12])];
    let v6 = [11, 12].map(|last| Addr::from_octets([0xfd, 0, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]));
    let all = [(v4, proto::ICMP, true), (v6, proto::ICMPV6, false)];
    let mut seeds = Vec::new();
    for (addr, icmp_proto, is_v4) in all {
        let usual = Packet { addr, v4: is_v4, ttl: 255, ..Packet::EMPTY };
        for (proto, flags) in [(proto::TCP, 0x02), (proto::TCP, 0x11), (proto::UDP, 0), (proto::SCTP, 1), (47, 0)] {
            seeds.push(write(&Packet { port: [40_000, 80], proto, flags, ..usual }));
        }
        for kind in if is_v4 { [0, 3, 8, 9, 10, 13] } else { [1, 128, 129, 133, 134, 135] } {
            seeds.push(write(&Packet { icmp: [kind, 0], proto: icmp_proto, ..usual }));
        }
        for part in [Part::First, Part::Later] {
            let kind = if part == Part::Later { Kind::Fragment } else { Kind::Tracked };
            seeds.push(write(&Packet { proto: proto::UDP, port: [1, 2], kind, part, id: 7, ..usual }));
        }
        let error = write(&Packet { icmp: [if is_v4 { 3 } else { 1 }, 4], proto: icmp_proto, ..usual });
        let back = [addr[1], addr[0]];
        let quoted = write(&Packet { addr: back, proto: proto::TCP, port: [40_000, 80], flags: 2, ..usual });
        seeds.push(longer(&[&error, &quoted[ETH_LEN..]].concat()));
    }
    let usual = Packet { addr: v6, ttl: 1, ..Packet::EMPTY };
    for proto in [0, 43, 44, 60, 59, 135] {
        seeds.push(write(&Packet { proto, kind: Kind::Extension, ..usual }));
    }
    seeds.push(write(&Packet { proto: proto::ICMPV6, icmp: [143, 0], kind: Kind::Neighbour, ..usual }));
    // A chain of readable ones: destination options twice around a routing header without segments.
    let mut chain = write(&Packet { proto: proto::TCP, port: [40_000, 80], flags: 2, ..usual });
    chain[ETH_LEN + 6] = 60;
    let headers = [43, 60, proto::TCP].map(|next| [next, 0, 0, 0, 0, 0, 0, 0]).concat();
    chain.splice(ETH_LEN + 40..ETH_LEN + 40, headers);
    seeds.push(longer(&chain));
    // IPv4 with the longest options, and a source route.
    let mut options = seeds[0].clone();
    options[ETH_LEN] = 0x4f;
    options.splice(ETH_LEN + 20..ETH_LEN + 20, [&[148, 38][..], &[0; 36], &[1, 0]].concat());
    seeds.push(longer(&options));
    seeds.push(write(&Packet { addr: v4, v4: true, proto: proto::TCP, kind: Kind::Extension, ..usual }));
    let mut arp = [vec![0xff; 12], ETH_P_ARP.to_be_bytes().to_vec()].concat();
    arp.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 11, 10, 244, 0, 11, 0, 0, 0, 0, 0, 0, 10, 244, 0, 1]);
    seeds.push(arp);
    seeds
}

/// With the length in its header that it has.
fn longer(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (at, without) = if frame[12..14] == ETH_P_IP.to_be_bytes() { (2, 0) } else { (4, 40) };
    let length = (frame.len() - ETH_LEN - without) as u16;
    frame[ETH_LEN + at..ETH_LEN + at + 2].copy_from_slice(&length.to_be_bytes());
    frame
}
