//! A little DNS server that answers as its questions' names say, over UDP and TCP, and a client. Messages are made by hand, so
//! that they can be wrong.
//!
//! | name | answer |
//! |---|---|
//! | `missing.*` | there is no such name |
//! | `silent.*` | none |
//! | `alias.*` | an alias, whose address is [`ADDRESS`] |
//! | `forged.*` | one with another number, one about another name, then the right one |
//! | `big.*` | over UDP "truncated", over TCP 120 addresses |
//! | `junk.*` | messages cut off at each length, noise, 60 KiB of noise, then the right one |
//! | others | [`ADDRESS`], or [`ADDRESS_V6`] |

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    sandbox::Sandbox,
    traffic::{OPEN, Protocol, connected_udp},
};

/// What names stand for.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// The same of IPv6.
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
/// What forged answers say.
pub const FORGED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
/// Type of IPv4 addresses.
pub const A: u16 = 1;
/// Type of IPv6 addresses.
pub const AAAA: u16 = 28;
/// Records of a big answer.
pub const MANY: u16 = 120;

const LOOK: Duration = Duration::from_millis(100);
const TTL_S: u32 = 30;
/// Where the question's name stands.
const ASKED: [u8; 2] = [0xc0, 12];

/// A message that asks.
pub fn question(id: u16, name: &str, rtype: u16) -> Vec<u8> {
    let mut message = header(id, 0x0100, 0);
    message.extend(asked(name, rtype));
    message
}

fn header(id: u16, flags: u16, answers: u16) -> Vec<u8> {
    [id, flags, 1, answers, 0, 0].into_iter().flat_map(u16::to_be_bytes).collect()
}

fn asked(name: &str, rtype: u16) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).chain(rtype.to_be_bytes()).chain([0, 1]).collect()
}

fn record(owner: &[u8], rtype: u16, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let ttl = TTL_S.to_be_bytes();
    [owner, &rtype.to_be_bytes(), &[0, 1], &ttl, &length.to_be_bytes(), data].concat()
}

fn address(owner: &[u8], rtype: u16) -> Vec<u8> {
    match rtype {
        AAAA => record(owner, AAAA, &ADDRESS_V6.octets()),
        _ => record(owner, A, &ADDRESS.octets()),
    }
}

/// All the answers to a message, in order.
fn answers(message: &[u8], protocol: Protocol) -> Vec<Vec<u8>> {
    const FINE: u16 = 0x8180;
    let Some(length) = message.get(12..).and_then(|name| name.iter().position(|&byte| byte == 0)) else {
        return Vec::new();
    };
    let (id, end) = (u16::from_be_bytes([message[0], message[1]]), 12 + length + 5);
    let Some(question) = message.get(12..end) else { return Vec::new() };
    let rtype = u16::from_be_bytes([question[length + 1], question[length + 2]]);
    let answer = |id: u16, flags: u16, question: &[u8], records: &[Vec<u8>]| {
        [header(id, flags, records.len() as u16), question.to_vec(), records.concat()].concat()
    };
    let right = answer(id, FINE, question, &[address(&ASKED, rtype)]);
    let first = String::from_utf8_lossy(&question[1..=usize::from(question[0])]).into_owned();
    match (first.as_str(), protocol) {
        ("missing", _) => vec![answer(id, FINE | 3, question, &[])],
        ("silent", _) => Vec::new(),
        ("alias", _) => {
            let name = b"\x04edge\x07example\x03net\x00";
            vec![answer(id, FINE, question, &[record(&ASKED, 5, name), address(name, rtype)])]
        }
        ("forged", _) => {
            let forged = record(&ASKED, A, &FORGED.octets());
            let other = asked("other.example", rtype);
            vec![answer(!id, FINE, question, std::slice::from_ref(&forged)), answer(id, FINE, &other, &[forged]), right]
        }
        ("big", Protocol::Udp) => vec![answer(id, FINE | 0x0200, question, &[])],
        ("big", _) => {
            let many: Vec<Vec<u8>> = (0..MANY).map(|_| address(&ASKED, rtype)).collect();
            vec![answer(id, FINE, question, &many)]
        }
        ("junk", _) => {
            let noise = |length: usize| (0..length).map(|at| (at * 131 + length) as u8).collect::<Vec<u8>>();
            let cut = (0..12 + question.len()).map(|length| right[..length].to_vec());
            let noises = (1..40).map(|size| noise(size * 31));
            cut.chain(noises).chain([noise(60_000), right.clone()]).collect()
        }
        _ => vec![right],
    }
}

/// A server in a namespace. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens on a port, both protocols, both families.
    pub fn start(sandbox: &Sandbox, port: u16) -> anyhow::Result<Self> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (udp, tcp) = {
            let _inside = sandbox.enter()?;
            (UdpSocket::bind(any).context("UDP")?, TcpListener::bind(any).context("TCP")?)
        };
        udp.set_read_timeout(Some(LOOK))?;
        tcp.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (told, told_too) = (stop.clone(), stop.clone());
        let datagrams = thread::spawn(move || {
            let mut message = [0; 2048];
            while !told.load(Ordering::Relaxed) {
                let Ok((length, from)) = udp.recv_from(&mut message) else { continue };
                for answer in answers(&message[..length], Protocol::Udp) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let streams = thread::spawn(move || {
            while !told_too.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((stream, _)) => drop(serve(stream)),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Ok(Self { stop, threads: vec![datagrams, streams] })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Answers questions until the client has no more.
fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(OPEN))?;
    stream.set_nodelay(true)?;
    loop {
        let message = read(&mut stream)?;
        let answers = answers(&message, Protocol::Tcp);
        for (place, answer) in answers.iter().enumerate() {
            if place + 1 == answers.len() {
                // What is sent at once may travel as one, of which only the beginning is taken.
                thread::sleep(LOOK / 2);
            }
            let length = u16::try_from(answer.len())?;
            stream.write_all(&[&length.to_be_bytes()[..], answer].concat())?;
        }
    }
}

fn read(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Asks once and waits for the answer with the right number and question, as a resolver does.
pub fn ask(from: &Sandbox, protocol: Protocol, server: SocketAddr, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    let is_answer = |answer: &[u8]| {
        let end = message.len();
        answer.len() >= end && answer[..2] == message[..2] && answer[2] & 0x80 != 0 && answer[12..end] == message[12..]
    };
    match protocol {
        Protocol::Udp => {
            let socket = connected_udp(from, server)?;
            socket.set_read_timeout(Some(OPEN))?;
            socket.send(message)?;
            let mut answer = vec![0; 65_536];
            loop {
                let length = socket.recv(&mut answer).context("no answer")?;
                if is_answer(&answer[..length]) {
                    answer.truncate(length);
                    return Ok(answer);
                }
            }
        }
        Protocol::Tcp => {
            let mut stream = {
                let _inside = from.enter()?;
                TcpStream::connect_timeout(&server, OPEN)?
            };
            stream.set_read_timeout(Some(OPEN))?;
            let length = u16::try_from(message.len())?;
            stream.write_all(&[&length.to_be_bytes()[..], message].concat())?;
            loop {
                let answer = read(&mut stream).context("no answer")?;
                if is_answer(&answer) {
                    return Ok(answer);
                }
            }
        }
        other => anyhow::bail!("no DNS over {other:?}"),
    }
}

/// Sends questions, each with its own number, and waits for nothing. How many the kernel has taken.
pub fn pour(from: &Sandbox, server: SocketAddr, count: u32) -> anyhow::Result<u64> {
    let socket = connected_udp(from, server)?;
    let mut sent = 0;
    for number in 0..count {
        // Somebody who says that nobody listens is not believed.
        sent += u64::from(socket.send(&question(number as u16, &format!("n{number}.flood.example"), A)).is_ok());
    }
    ensure!(sent > 0, "nothing could be sent");
    Ok(sent)
}

/// What a name stands for, by type.
pub fn meant(rtype: u16) -> IpAddr {
    if rtype == AAAA { ADDRESS_V6.into() } else { ADDRESS.into() }
}
