//! Frames of each class, cut at each length, and random ones against what may never be dropped.

use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy)]
struct Slice<'a>(&'a [u8]);

impl View for Slice<'_> {
    fn u8(self, at: usize) -> u8 {
        self.0[at]
    }
    fn u16(self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }
    fn u32(self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }
    fn u64(self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap())
    }
}

impl<'a> Bytes for Slice<'a> {
    type View = Slice<'a>;
    fn view(&self, offset: usize, length: usize) -> Option<Slice<'a>> {
        self.0.get(offset..offset + length).map(Slice)
    }
    fn length(&self) -> u32 {
        self.0.len() as u32
    }
}

const SOURCE: [u8; 4] = [192, 0, 2, 1];
const HERE: [u8; 4] = [198, 51, 100, 7];

fn said(frame: &[u8]) -> Result<(), DropReason> {
    judge(&Slice(frame), &mut { Look::EMPTY }, |_| false)
}

/// Ethernet with `tags` VLAN tags.
fn ethernet(tags: usize, ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for _ in 0..tags {
        frame.extend([0x81, 0, 0, 5]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// A TCP segment in IPv4.
fn four(tags: usize, source: [u8; 4], destination: [u8; 4], flags: u8) -> Vec<u8> {
    let mut frame = ethernet(tags, ETH_P_IP);
    frame.extend([0x45, 0, 0, 40, 0, 1, 0, 0, 64, proto::TCP, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    frame
}

/// The same in IPv6.
fn six(tags: usize, source: [u8; 16], flags: u8) -> Vec<u8> {
    let mut frame = ethernet(tags, ETH_P_IPV6);
    frame.extend([0x60, 0, 0, 0, 0, 20, proto::TCP, 64]);
    frame.extend(source);
    frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    frame.extend([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    frame
}

const SIX: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

#[test]
fn whole_packets_pass_and_cut_ones_do_not() {
    for tags in 0..=2 {
        for frame in [four(tags, SOURCE, HERE, tcp::SYN), six(tags, SIX, tcp::SYN)] {
            assert_eq!(said(&frame), Ok(()));
            for length in 0..frame.len() {
                assert_eq!(said(&frame[..length]), Err(DropReason::TruncatedHeader), "{tags} tags, {length} bytes");
            }
            // Ethernet fills short frames up.
            assert_eq!(said(&[frame, vec![0; 20]].concat()), Ok(()));
        }
    }
}

#[test]
fn lengths_that_contradict_each_other_are_dropped() {
    for (at, byte) in [(14, 0x44), (14, 0x55), (14, 0x4f), (17, 19), (17, 41), (17, 39), (46, 0x40), (46, 0x60)] {
        let mut frame = four(0, SOURCE, HERE, tcp::ACK);
        frame[at] = byte;
        assert_eq!(said(&frame), Err(DropReason::TruncatedHeader), "{byte:#x} at {at}");
    }
    for (at, byte) in [(14, 0x40), (19, 21), (19, 19)] {
        let mut frame = six(0, SIX, tcp::ACK);
        frame[at] = byte;
        assert_eq!(said(&frame), Err(DropReason::TruncatedHeader), "{byte:#x} at {at}");
    }
}

#[test]
fn impossible_sources_are_dropped() {
    for source in [[127, 0, 0, 1], [224, 0, 0, 1], [239, 1, 1, 1], [255; 4], HERE] {
        assert_eq!(said(&four(0, source, HERE, tcp::SYN)), Err(DropReason::Invalid), "{source:?}");
    }
    for source in [[0; 4], [126, 1, 1, 1], [240, 0, 0, 1], [10, 0, 0, 255]] {
        assert_eq!(said(&four(0, source, HERE, tcp::SYN)), Ok(()), "{source:?}");
    }
    let [mut loopback, mut group] = [[0; 16], SIX];
    loopback[15] = 1;
    group[0] = 0xff;
    for source in [loopback, group, Addr::from_v4(SOURCE).octets()] {
        assert_eq!(said(&six(0, source, tcp::SYN)), Err(DropReason::Invalid), "{source:?}");
    }
    assert_eq!(said(&six(0, [0; 16], tcp::SYN)), Ok(()));
}

#[test]
fn flags_that_contradict_each_other_are_dropped() {
    for flags in 0..=u8::MAX {
        let (syn, other) = (flags & tcp::SYN != 0, flags & (tcp::FIN | tcp::RST) != 0);
        let expected = if flags & 0x3f == 0 || syn && other { Err(DropReason::TcpFlags) } else { Ok(()) };
        assert_eq!(said(&four(1, SOURCE, HERE, flags)), expected, "{flags:#x}");
        assert_eq!(said(&six(1, SIX, flags)), expected, "{flags:#x}");
        // Of a fragment no transport header is read.
        let mut part = four(0, SOURCE, HERE, flags);
        part[20] = 0x20;
        assert_eq!(said(&part), Ok(()));
    }
}

#[test]
fn the_deny_list_is_asked_for_the_source_of_whatever_is_ip() {
    let (list, mut part) = (|addr| addr == Addr::from_v4(SOURCE), four(2, SOURCE, HERE, tcp::SYN));
    assert_eq!(judge(&Slice(&part), &mut { Look::EMPTY }, list), Err(DropReason::DenyList));
    part[28] = 0x20;
    assert_eq!(judge(&Slice(&part), &mut { Look::EMPTY }, list), Err(DropReason::DenyList), "a fragment");
    let back = four(0, HERE, SOURCE, tcp::SYN);
    assert_eq!(judge(&Slice(&back), &mut { Look::EMPTY }, list), Ok(()), "a destination");
    for other in [0x0806, 0x88cc, 0x8863, 0x0026] {
        assert_eq!(judge(&Slice(&[ethernet(0, other), vec![0; 46]].concat()), &mut { Look::EMPTY }, |_| true), Ok(()));
    }
    assert_eq!(judge(&Slice(&ethernet(3, ETH_P_IP)), &mut { Look::EMPTY }, |_| true), Ok(()), "three tags");
}

proptest! {
    #[test]
    fn any_bytes_are_judged_and_what_is_no_ip_passes(mut frame in prop::collection::vec(any::<u8>(), 14..120)) {
        let _ = said(&frame);
        for ethertype in [ETH_P_IP, ETH_P_IPV6] {
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            let _ = said(&frame);
        }
        frame[12..14].copy_from_slice(&0x88cc_u16.to_be_bytes());
        prop_assert_eq!(said(&frame), Ok(()));
    }
}
