//! Servers and clients in network namespaces, on plain sockets: a server sends back what it gets.
//! A socket belongs to the namespace it was made in, so only making it happens there.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketType, ipproto, shutdown, sockopt::Timeout},
};

use crate::sandbox::Sandbox;

/// How long a connection may take that is to be made: longer than TCP waits before it sends a
/// lost first packet again (1 s, RFC 6298, section 2).
pub const OPEN: Duration = Duration::from_secs(5);
/// How long to wait for an answer that must not come. An allowed one takes less than a
/// millisecond.
pub const SILENT: Duration = Duration::from_millis(300);
/// How often threads look whether they are to end.
const LOOK: Duration = Duration::from_millis(100);

/// What came of trying to reach somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The server has answered.
    Yes,
    /// Somebody has said no: nothing listens there. Packets got through.
    Refused,
    /// Nobody has said anything. What policy denies is dropped in silence.
    No,
}

/// Protocol of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, an association for each attempt; only where [`Feature::Sctp`](crate::feature::Feature::Sctp).
    Sctp,
    /// Echo of ICMP or ICMPv6; ports do not count, and every pod answers by itself.
    Ping,
}

/// Tries to reach a server from a namespace, for no longer than `patience`.
///
/// # Errors
/// The attempt could not be made; that says nothing about policy.
pub fn reach(from: &Sandbox, protocol: Protocol, to: SocketAddr, patience: Duration) -> anyhow::Result<Reached> {
    let reached = match protocol {
        Protocol::Tcp => tcp(from, to, patience),
        Protocol::Udp => udp(from, to, patience),
        Protocol::Sctp => sctp(from, to, patience),
        Protocol::Ping => ping(from, to.ip(), patience),
    };
    reached.with_context(|| format!("{protocol:?} to {to}"))
}

fn tcp(from: &Sandbox, to: SocketAddr, patience: Duration) -> anyhow::Result<Reached> {
    let connected = {
        let _inside = from.enter()?;
        TcpStream::connect_timeout(&to, patience)
    };
    match connected {
        Ok(stream) => echoed(stream, patience),
        Err(error) => verdict(error),
    }
}

/// A socket that is used as one of TCP is (RFC 6458, section 4).
fn sctp_socket(family: AddressFamily) -> anyhow::Result<OwnedFd> {
    rustix::net::socket(family, SocketType::STREAM, Some(ipproto::SCTP)).context("an SCTP socket")
}

fn sctp(from: &Sandbox, to: SocketAddr, patience: Duration) -> anyhow::Result<Reached> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = {
        let _inside = from.enter()?;
        sctp_socket(family)?
    };
    // For connect as well; a handshake that takes longer is "in progress".
    rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) => echoed(TcpStream::from(socket), patience),
        Err(Errno::INPROGRESS) => Ok(Reached::No),
        Err(error) => verdict(error.into()),
    }
}

/// Whether the other end sends back what it gets.
fn echoed(mut stream: TcpStream, patience: Duration) -> anyhow::Result<Reached> {
    stream.set_read_timeout(Some(patience))?;
    let mut answer = [0; 4];
    match stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut answer)) {
        Ok(()) if &answer == b"ping" => Ok(Reached::Yes),
        Ok(()) => anyhow::bail!("the server answered {answer:?}"),
        Err(error) => verdict(error),
    }
}

fn udp(from: &Sandbox, to: SocketAddr, patience: Duration) -> anyhow::Result<Reached> {
    let socket = connected_udp(from, to)?;
    socket.set_read_timeout(Some(patience))?;
    let mut answer = [0; 16];
    match socket.send(b"ping").and_then(|_| undisturbed(|| socket.recv(&mut answer))) {
        Ok(4) if answer.starts_with(b"ping") => Ok(Reached::Yes),
        Ok(_) => anyhow::bail!("the server answered {answer:?}"),
        Err(error) => verdict(error),
    }
}

/// One echo request by a "ping socket" (icmp(7)): the kernel fills in number and checksum.
fn ping(from: &Sandbox, to: IpAddr, patience: Duration) -> anyhow::Result<Reached> {
    // Type, code, checksum, identifier, sequence number (RFC 792, RFC 4443).
    let (family, protocol, request, answer) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    let socket = {
        let _inside = from.enter()?;
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").context("allowing ping sockets")?;
        rustix::net::socket(family, SocketType::DGRAM, Some(protocol)).context("a ping socket")?
    };
    rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
    rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
    rustix::net::send(&socket, &[request, 0, 0, 0, 0, 0, 0, 1, b'p'], SendFlags::empty())?;
    let mut message = [0; 64];
    match undisturbed(|| Ok(rustix::net::recv(&socket, &mut message, RecvFlags::empty())?)) {
        Ok(_) if message[0] == answer => Ok(Reached::Yes),
        Ok(_) => anyhow::bail!("an ICMP message of type {}", message[0]),
        Err(error) => verdict(error),
    }
}

/// Calls again what was interrupted: a socket with a timeout is not waited for again by the kernel (signal(7)), also
/// when nothing but a freezer has stopped us for a moment.
pub(crate) fn undisturbed<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A UDP socket of a namespace that talks to one address.
pub fn connected_udp(from: &Sandbox, to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let _inside = from.enter()?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}

fn verdict(error: io::Error) -> anyhow::Result<Reached> {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(Reached::No),
        ErrorKind::ConnectionRefused => Ok(Reached::Refused),
        _ => Err(error.into()),
    }
}

/// Echo servers of one namespace, on both families. They end when this is dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    listeners: Vec<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Listens on these ports.
    pub fn start(sandbox: &Sandbox, tcp: &[u16], udp: &[u16]) -> anyhow::Result<Self> {
        let mut echo = Self { stop: Arc::default(), listeners: Vec::new(), threads: Vec::new() };
        // A wildcard of IPv6 serves IPv4 as well (ipv6(7), bindv6only).
        let any = |port: &u16| SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
        let _inside = sandbox.enter()?;
        for port in tcp {
            let listener = TcpListener::bind(any(port)).with_context(|| format!("listening at TCP port {port}"))?;
            echo.listeners.push(listener.try_clone()?);
            let stop = echo.stop.clone();
            echo.threads.push(thread::spawn(move || accept(&listener, &stop)));
        }
        for port in udp {
            let socket = UdpSocket::bind(any(port)).with_context(|| format!("listening at UDP port {port}"))?;
            socket.set_read_timeout(Some(LOOK))?;
            let stop = echo.stop.clone();
            echo.threads.push(thread::spawn(move || answer(&socket, &stop)));
        }
        Ok(echo)
    }
}

impl Echo {
    /// Serves SCTP at these ports as well.
    ///
    /// # Errors
    /// The kernel has no SCTP sockets: see [`Feature::Sctp`](crate::feature::Feature::Sctp).
    pub fn with_sctp(mut self, sandbox: &Sandbox, ports: &[u16]) -> anyhow::Result<Self> {
        let _inside = sandbox.enter()?;
        for port in ports {
            let socket = sctp_socket(AddressFamily::INET6)?;
            rustix::net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)))?;
            rustix::net::listen(&socket, 16).with_context(|| format!("listening at SCTP port {port}"))?;
            // Closing one side of it wakes nobody, as it does with TCP.
            rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))?;
            let (listener, stop) = (TcpListener::from(socket), self.stop.clone());
            self.threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((stream, _)) = listener.accept() {
                        let stop = stop.clone();
                        thread::spawn(move || serve(stream, &stop));
                    }
                }
            }));
        }
        Ok(self)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // Wakes the thread that waits in accept.
            let _ = shutdown(listener, Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    while let Ok((stream, _)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let stop = stop.clone();
        thread::spawn(move || serve(stream, &stop));
    }
}

fn serve(mut stream: TcpStream, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    if stream.set_read_timeout(Some(LOOK)).is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
}

fn answer(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

/// One line of [`expect`]: who, to whom, and what is to come of it.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    /// What is tried, in words.
    pub what: String,
    /// From this namespace.
    pub from: &'a Sandbox,
    /// By this protocol.
    pub protocol: Protocol,
    /// To this address.
    pub to: SocketAddr,
    /// Whether it is allowed.
    pub allowed: bool,
}

/// Tries all cases at once. Fails with every case that came out otherwise.
pub fn expect(cases: &[Case<'_>]) -> anyhow::Result<()> {
    let outcomes: Vec<anyhow::Result<Reached>> = thread::scope(|scope| {
        let attempt = |case: &Case<'_>| {
            let patience = if case.allowed { OPEN } else { SILENT };
            reach(case.from, case.protocol, case.to, patience)
        };
        let started: Vec<_> = cases.iter().map(|case| scope.spawn(move || attempt(case))).collect();
        started.into_iter().map(|thread| thread.join().expect("an attempt does not panic")).collect()
    });
    let mut wrong = Vec::new();
    for (case, outcome) in cases.iter().zip(outcomes) {
        let wanted = if case.allowed { Reached::Yes } else { Reached::No };
        match outcome {
            Ok(reached) if reached == wanted => {}
            other => wrong.push(format!(
                "{} by {:?} to {}: wanted {wanted:?}, found {other:?}",
                case.what, case.protocol, case.to
            )),
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{} of {} attempts:\n  {}", wrong.len(), cases.len(), wrong.join("\n  "));
    Ok(())
}
