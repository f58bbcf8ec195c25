//! Frames as they are, out of an interface of a namespace: for what no socket of IP would send.
//!
//! By a packet socket (packet(7)), whose address no safe interface of the standard library or `rustix` knows:
//! perl does it, which is part of every Debian and of nearly every other system.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

use crate::sandbox::Sandbox;

/// Reads frames in hexadecimal, a line each. AF_PACKET is 17, SOCK_RAW 3; the address is a
/// `sockaddr_ll` with the interface's number. 263 is SOL_PACKET, 15 PACKET_VNET_HDR: each frame then comes behind a
/// `virtio_net_hdr`, whose `hdr_len` says how much of it the kernel makes linear.
const SEND: &str = r#"
    use strict;
    my ($index, $linear) = @ARGV;
    @ARGV = ();
    socket(my $socket, 17, 3, 0) or die "socket: $!";
    my $before = "";
    if ($linear) {
        setsockopt($socket, 263, 15, pack("i", 1)) or die "PACKET_VNET_HDR: $!";
        $before = pack("CCSSSS", 0, 0, $linear, 0, 0, 0);
    }
    my $to = pack("SniSCCa8", 17, 0, $index, 0, 0, 6, "");
    while (my $line = <STDIN>) {
        chomp $line;
        defined send($socket, $before . pack("H*", $line), 0, $to) or die "send: $!";
    }
"#;

/// Sends frames, Ethernet header included.
///
/// # Errors
/// There is no such interface, no perl, or the kernel does not take a frame.
pub fn send(from: &Sandbox, ifname: &str, frames: &[Vec<u8>]) -> anyhow::Result<()> {
    send_as(from, ifname, frames, 0)
}

/// The same, with the kernel's socket buffer linear up to so many bytes only, as some drivers deliver what they receive. The
/// kernel does so for frames that are larger than a page.
///
/// # Errors
/// As [`send`].
pub fn send_apart(from: &Sandbox, ifname: &str, frames: &[Vec<u8>], linear: u16) -> anyhow::Result<()> {
    send_as(from, ifname, frames, linear)
}

fn send_as(from: &Sandbox, ifname: &str, frames: &[Vec<u8>], linear: u16) -> anyhow::Result<()> {
    let mut text = String::new();
    for frame in frames {
        for byte in frame {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    let _inside = from.enter()?;
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let index = name_to_index(any, ifname).with_context(|| format!("an interface {ifname}"))?;
    let mut perl = Command::new("perl")
        .args(["-e", SEND, &index.to_string(), &linear.to_string()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting perl (package perl-base)")?;
    perl.stdin.take().context("its input")?.write_all(text.as_bytes())?;
    let output = perl.wait_with_output()?;
    ensure!(output.status.success(), "perl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
