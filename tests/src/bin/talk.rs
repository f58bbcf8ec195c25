//! What runs in test containers: a server that sends back what it gets, and a client that says
//! who answers. It needs nothing but libc, and knows nothing of Bulkhead.
//!
//! `talk serve tcp:80 udp:53`: serves on all addresses of both families until it is killed.
//! `talk ask MILLISECONDS tcp:10.0.0.1:80 udp:[fd00::1]:53`: asks all at once and prints a line for each:
//! `yes`, `refused` or `silence`, and the target.

use std::{
    env,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
    time::Duration,
};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve", ports @ ..] => serve(ports),
        ["ask", milliseconds, targets @ ..] => match milliseconds.parse() {
            Ok(milliseconds) => ask(Duration::from_millis(milliseconds), targets),
            Err(_) => Err(usage(milliseconds)),
        },
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

fn verdict(answer: io::Result<()>) -> io::Result<&'static str> {
    match answer {
        Ok(()) => Ok("yes"),
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok("silence"),
            ErrorKind::ConnectionRefused => Ok("refused"),
            _ => Err(error),
        },
    }
}
