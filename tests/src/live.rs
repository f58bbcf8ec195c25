//! Connections that run for a while, with both ends sending numbered messages every two milliseconds:
//! when did which direction hear the last one, how long was it silent, what was lost.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    sandbox::Sandbox,
    traffic::{OPEN, Protocol, connected_udp, undisturbed},
};

/// Pause between two messages.
pub const TICK: Duration = Duration::from_millis(2);
/// How long messages that are under way at the end may take.
const LAST: Duration = Duration::from_millis(150);
/// How often threads look whether they are to end.
const LOOK: Duration = Duration::from_millis(50);

/// One direction, as its receiver saw it.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Messages sent by the other end.
    pub sent: u64,
    /// Messages that arrived.
    pub received: u64,
    /// When the last one arrived.
    pub last: Instant,
    /// The longest silence between two.
    pub longest_gap: Duration,
}

/// Both directions.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// From the initiator.
    pub there: Heard,
    /// To the initiator.
    pub back: Heard,
}

impl Report {
    /// How long after `change` the last message got through, in either direction.
    pub fn cut_after(&self, change: Instant) -> Duration {
        self.there.last.max(self.back.last).saturating_duration_since(change)
    }

    /// Messages that did not arrive.
    pub fn lost(&self) -> u64 {
        [self.there, self.back].iter().map(|heard| heard.sent.saturating_sub(heard.received)).sum()
    }

    /// Fails if anything was lost.
    pub fn lossless(&self) -> anyhow::Result<()> {
        ensure!(self.there.received > 10 && self.back.received > 10, "hardly anything was sent: {self:?}");
        ensure!(self.lost() == 0, "{} messages were lost: {self:?}", self.lost());
        Ok(())
    }
}

/// A connection that runs.
#[derive(Debug)]
pub struct Live {
    stop: Arc<AtomicBool>,
    /// The initiator's end, then the other.
    ends: [End; 2],
}

#[derive(Debug)]
struct End {
    sender: JoinHandle<u64>,
    receiver: JoinHandle<(u64, Instant, Duration)>,
}

impl Live {
    /// Opens a connection and lets both ends talk. Returns when both have heard each other.
    pub fn open(from: &Sandbox, protocol: Protocol, server: &Sandbox, to: SocketAddr) -> anyhow::Result<Self> {
        Self::open_at(from, protocol, server, to.port(), to)
    }

    /// The same where the server listens at another port than that which the client asks for.
    pub fn open_at(
        from: &Sandbox,
        protocol: Protocol,
        server: &Sandbox,
        port: u16,
        to: SocketAddr,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = match protocol {
            Protocol::Tcp => {
                let (client, server) = tcp(from, server, port, to)?;
                [End::tcp(client, &stop)?, End::tcp(server, &stop)?]
            }
            Protocol::Udp => {
                let (client, server) = udp(from, server, port, to)?;
                [End::udp(client, &stop)?, End::udp(server, &stop)?]
            }
            Protocol::Sctp => bail!("nobody here talks SCTP for a while"),
            Protocol::Ping => bail!("only one end of a ping talks by itself"),
        };
        Ok(Self { stop, ends })
    }

    /// Ends it and tells.
    pub fn finish(self) -> anyhow::Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut heard = Vec::new();
        let mut sent = Vec::new();
        for end in self.ends {
            sent.push(end.sender.join().ok().context("a sender panicked")?);
            heard.push(end.receiver.join().ok().context("a receiver panicked")?);
        }
        let direction = |sender: usize, receiver: usize| {
            let (received, last, longest_gap) = heard[receiver];
            Heard { sent: sent[sender], received, last, longest_gap }
        };
        Ok(Report { there: direction(0, 1), back: direction(1, 0) })
    }
}

/// A connection that is established on both ends.
fn tcp(from: &Sandbox, server: &Sandbox, port: u16, to: SocketAddr) -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = {
        let _inside = server.enter()?;
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("listening at port {port}"))?
    };
    let client = {
        let _inside = from.enter()?;
        TcpStream::connect_timeout(&to, OPEN).with_context(|| format!("connecting to {to}"))?
    };
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    Ok((client, server))
}

/// Two sockets that have heard each other, twice, so that the datapath holds it established.
fn udp(from: &Sandbox, server: &Sandbox, port: u16, to: SocketAddr) -> anyhow::Result<(UdpSocket, UdpSocket)> {
    let there = {
        let _inside = server.enter()?;
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("listening at port {port}"))?
    };
    let client = connected_udp(from, to)?;
    for socket in [&there, &client] {
        socket.set_read_timeout(Some(OPEN))?;
    }
    let mut buffer = [0; 8];
    for _ in 0..2 {
        client.send(&[0; 8])?;
        let (_, peer) =
            undisturbed(|| there.recv_from(&mut buffer)).with_context(|| format!("the first message to {to}"))?;
        there.connect(peer)?;
        there.send(&[0; 8])?;
        undisturbed(|| client.recv(&mut buffer)).with_context(|| format!("the first answer of {to}"))?;
    }
    Ok((client, there))
}

impl End {
    fn tcp(stream: TcpStream, stop: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(LOOK))?;
        let (mut reader, mut writer) = (stream.try_clone()?, stream);
        // What a cut connection cannot get rid of must not keep its thread.
        writer.set_write_timeout(Some(LOOK))?;
        let sender = send(stop, move |message| writer.write_all(&message).is_ok());
        let mut filled = 0;
        let mut message = [0; 8];
        let receiver = receive(stop, move || {
            loop {
                match reader.read(&mut message[filled..]) {
                    Ok(0) => return Got::End,
                    Ok(more) if filled + more < message.len() => filled += more,
                    Ok(_) => {
                        filled = 0;
                        return Got::Message(u64::from_be_bytes(message));
                    }
                    Err(error) => return nothing(&error),
                }
            }
        });
        Ok(Self { sender, receiver })
    }

    fn udp(socket: UdpSocket, stop: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        socket.set_read_timeout(Some(LOOK))?;
        let (reader, writer) = (socket.try_clone()?, socket);
        let sender = send(stop, move |message| writer.send(&message).is_ok());
        let mut message = [0; 8];
        let receiver = receive(stop, move || match reader.recv(&mut message) {
            Ok(_) => Got::Message(u64::from_be_bytes(message)),
            Err(error) => nothing(&error),
        });
        Ok(Self { sender, receiver })
    }
}

enum Got {
    Message(u64),
    Nothing,
    End,
}

fn nothing(error: &std::io::Error) -> Got {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Got::Nothing,
        _ => Got::End,
    }
}

/// Sends numbers until told to stop; returns how many it was able to hand to the kernel.
fn send(stop: &Arc<AtomicBool>, mut message: impl FnMut([u8; 8]) -> bool + Send + 'static) -> JoinHandle<u64> {
    let stop = stop.clone();
    thread::spawn(move || {
        let mut number: u64 = 0;
        while !stop.load(Ordering::Relaxed) && message((number + 1).to_be_bytes()) {
            number += 1;
            thread::sleep(TICK);
        }
        number
    })
}

/// Counts different messages until told to stop and nothing comes any more.
fn receive(
    stop: &Arc<AtomicBool>,
    mut next: impl FnMut() -> Got + Send + 'static,
) -> JoinHandle<(u64, Instant, Duration)> {
    let stop = stop.clone();
    thread::spawn(move || {
        let (mut count, mut highest) = (0, 0);
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        let mut told: Option<Instant> = None;
        loop {
            let got = next();
            let now = Instant::now();
            if let Got::Message(number) = got {
                // Neither is reordered on one machine, and the zeros of the beginning do not count.
                if number > highest {
                    (count, highest) = (count + 1, number);
                    longest = longest.max(now - last);
                    last = now;
                }
            }
            if matches!(got, Got::End) {
                break;
            }
            if stop.load(Ordering::Relaxed) && *told.get_or_insert(now) + LAST < now {
                break;
            }
        }
        (count, last, longest)
    })
}

/// TCP segments sent again in a namespace so far because an answer was missing: `RetransSegs` (RFC
/// 4022) without tail loss probes (RFC 8985, section 7), which a busy machine sends when an answer is
/// merely late.
pub fn retransmissions(sandbox: &Sandbox) -> anyhow::Result<u64> {
    let again = counter_of(sandbox, "snmp", "Tcp: ", "RetransSegs")?;
    let probes = counter_of(sandbox, "netstat", "TcpExt: ", "TCPLossProbes")?;
    Ok(again.saturating_sub(probes))
}

/// A counter of a namespace, by file below /proc/net, the prefix of its lines, and name (proc_net(5)).
pub fn counter_of(sandbox: &Sandbox, file: &str, prefix: &str, name: &str) -> anyhow::Result<u64> {
    let _inside = sandbox.enter()?;
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).context("counters of a namespace")?;
    counter(&text, prefix, name)
}

/// A counter out of two lines, one of names and one of values.
fn counter(text: &str, prefix: &str, name: &str) -> anyhow::Result<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (names, values) = lines.next().zip(lines.next()).with_context(|| format!("two lines {prefix}"))?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(found, _)| *found == name).with_context(|| name.to_owned())?;
    Ok(value.parse()?)
}
