//! What runs in test containers: a server that sends back what it gets, and a client that says
//! who answers. It needs nothing but libc, and knows nothing of Bulkhead.
//!
//! `talk serve tcp:80 udp:53`: serves on all addresses of both families until it is killed.
//! `talk ask MILLISECONDS tcp:10.0.0.1:80 udp:[fd00::1]:53`: asks all at once and prints a line for each:
//! `yes`, `refused` (by whoever it was, in whatever way) or `silence`, and the target.
//! `talk stay tcp:10.0.0.1:80`: one connection, a message and its answer every few milliseconds, until nothing more
//! comes in; then prints how many there were and how many segments this network had to send again.

use std::{
    env,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How long a connection that stays waits for an answer: longer than any retransmission that goes well.
const LONGEST: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve", ports @ ..] => serve(ports),
        ["ask", milliseconds, targets @ ..] => match milliseconds.parse() {
            Ok(milliseconds) => ask(Duration::from_millis(milliseconds), targets),
            Err(_) => Err(usage(milliseconds)),
        },
        ["stay", target] => stay(target),
        _ => Err(usage(&words.join(" "))),
    };
    if let Err(error) = result {
        eprintln!("talk: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn usage(what: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        format!("{what:?}: talk serve tcp:80 udp:53, or talk ask 500 tcp:10.0.0.1:80"),
    )
}

/// Serves until it is killed.
fn serve(ports: &[&str]) -> io::Result<()> {
    let mut threads = Vec::new();
    for spec in ports {
        let (protocol, port) = spec.split_once(':').ok_or_else(|| usage(spec))?;
        // A wildcard of IPv6 serves IPv4 as well (ipv6(7), bindv6only).
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.parse().map_err(|_| usage(spec))?));
        threads.push(match protocol {
            "tcp" => {
                let listener = TcpListener::bind(any)?;
                thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
                    }
                })
            }
            "udp" => {
                let socket = UdpSocket::bind(any)?;
                thread::spawn(move || {
                    let mut packet = [0; 2048];
                    // An error tells of an earlier packet that nobody took.
                    loop {
                        if let Ok((length, from)) = socket.recv_from(&mut packet) {
                            let _ = socket.send_to(&packet[..length], from);
                        }
                    }
                })
            }
            _ => return Err(usage(spec)),
        });
    }
    println!("serving {}", ports.join(" "));
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Asks all at once.
fn ask(patience: Duration, targets: &[&str]) -> io::Result<()> {
    let mut threads = Vec::new();
    for target in targets {
        let (protocol, address) = target.split_once(':').ok_or_else(|| usage(target))?;
        let address: SocketAddr = address.parse().map_err(|_| usage(target))?;
        let ask = match protocol {
            "tcp" => ask_tcp,
            "udp" => ask_udp,
            _ => return Err(usage(target)),
        };
        threads.push((target, thread::spawn(move || ask(address, patience))));
    }
    for (target, thread) in threads {
        let answer = thread.join().map_err(|_| io::Error::other("a thread has panicked"))?;
        println!("{} {target}", verdict(answer)?);
    }
    Ok(())
}

fn ask_tcp(address: SocketAddr, patience: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"ping")?;
    stream.read_exact(&mut [0; 4])
}

fn ask_udp(address: SocketAddr, patience: Duration) -> io::Result<()> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"ping")?;
    socket.recv(&mut [0; 4])?;
    Ok(())
}

/// See the module.
fn stay(target: &str) -> io::Result<()> {
    let address = target.strip_prefix("tcp:").and_then(|address| address.parse().ok()).ok_or_else(|| usage(target))?;
    let mut stream = TcpStream::connect_timeout(&address, LONGEST)?;
    stream.set_read_timeout(Some(LONGEST))?;
    stream.set_nodelay(true)?;
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        told.store(true, Ordering::Relaxed);
    });
    let before = sent_again()?;
    let mut count = 0_u64;
    // The first answer says that it has begun.
    while !ended.load(Ordering::Relaxed) {
        let message = count.to_be_bytes();
        stream.write_all(&message)?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        if answer != message {
            return Err(io::Error::other(format!("message {count} was answered with {answer:?}")));
        }
        if count == 0 {
            println!("begun");
        }
        count += 1;
        thread::sleep(Duration::from_millis(5));
    }
    println!("{count} messages, {} segments sent again", sent_again()? - before);
    Ok(())
}

/// Segments that this network namespace has sent again: RetransSegs of RFC 4022, proc_net(5).
fn sent_again() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let names = lines.next().unwrap_or_default().split(' ');
    let mut values = lines.next().unwrap_or_default().split(' ');
    let at = names.into_iter().position(|name| name == "RetransSegs");
    let value = at.and_then(|at| values.nth(at)).and_then(|value| value.parse().ok());
    value.ok_or_else(|| io::Error::other("no RetransSegs in /proc/net/snmp"))
}

fn verdict(answer: io::Result<()>) -> io::Result<&'static str> {
    match answer {
        Ok(()) => Ok("yes"),
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok("silence"),
            // Somebody says no. EPERM is a firewall of this very network that rejects, as kube-proxy does with addresses of
            // Services that it has not heard of yet.
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied => Ok("refused"),
            _ => Err(error),
        },
    }
}
