//! Packets that must not arrive: senders that never give up, and traps that keep what arrives
//! nevertheless. Unlike `live` nobody answers, and nothing has to be open.

use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    node::{PATIENCE, eventually},
    sandbox::Sandbox,
};

/// What a flood sends.
const FORBIDDEN: &[u8] = b"forbidden";

/// Datagrams out of a namespace, over and over. Also one that has no link yet: the kernel refuses
/// them until there is a way.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
}

impl Flood {
    /// One datagram to each of these, then a pause, and again.
    pub fn start(from: &Sandbox, to: Vec<SocketAddr>, pause: Duration) -> anyhow::Result<Self> {
        let (v4, v6) = {
            let _inside = from.enter()?;
            (UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?)
        };
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while !told.load(Ordering::Relaxed) {
                for target in &to {
                    let socket = if target.is_ipv4() { &v4 } else { &v6 };
                    sent += u64::from(socket.send_to(FORBIDDEN, target).is_ok());
                }
                thread::sleep(pause);
            }
            sent
        });
        Ok(Self { stop, sender })
    }

    /// Ends it. How many datagrams the kernel has taken.
    pub fn finish(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().ok().context("the sender panicked")
    }
}

/// A port of a namespace at which nothing must arrive.
#[derive(Debug)]
pub struct Trap {
    socket: UdpSocket,
}

impl Trap {
    /// Listens on a UDP port, both families. The namespace needs no link yet.
    pub fn set(sandbox: &Sandbox, port: u16) -> anyhow::Result<Self> {
        let _inside = sandbox.enter()?;
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("UDP port {port}"))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// Who has sent what has arrived since the last look.
    pub fn caught(&self) -> Vec<SocketAddr> {
        let mut message = [0; 16];
        std::iter::from_fn(|| self.socket.recv_from(&mut message).ok()).map(|(_, from)| from).collect()
    }

    /// Fails if anything has arrived.
    pub fn is_empty(&self) -> anyhow::Result<()> {
        let caught = self.caught();
        ensure!(caught.is_empty(), "{} forbidden packets have arrived, the first from {}", caught.len(), caught[0]);
        Ok(())
    }

    /// Waits until something arrives: the control that a trap can catch.
    pub fn catches(&self) -> anyhow::Result<()> {
        ensure!(eventually(PATIENCE, || Ok(!self.caught().is_empty()))?, "nothing arrives at all");
        Ok(())
    }
}
