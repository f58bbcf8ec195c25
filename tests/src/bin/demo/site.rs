//! What runs in the pods: this program again, as a small web server that says who it is; and the
//! client that asks it. The servers are processes of their own so that they can outlive the story.

use std::{
    convert::Infallible,
    env,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tests::sandbox::Sandbox;

/// A server in a pod. Ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Site(Child);

impl Site {
    /// Starts it and waits until it listens.
    pub(crate) fn start(sandbox: &Sandbox, name: &str, ports: &[u16]) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe().context("where this program is")?);
        command.args(["serve", name]).args(ports.iter().map(u16::to_string));
        // A Ctrl-C is for the story, which ends its servers itself.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = {
            let _inside = sandbox.enter()?;
            command.spawn().context("starting a server")?
        };
        let mut site = Self(child);
        let mut line = String::new();
        let stdout = site.0.stdout.take().context("standard output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the server of {name} has not come up");
        Ok(site)
    }

    /// Lets it run on.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server, until somebody ends it. It is in the pod's namespace from its start.
pub(crate) fn serve(name: &str, ports: &[u16]) -> anyhow::Result<()> {
    let mut threads = Vec::new();
    for port in ports {
        let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)))
            .with_context(|| format!("listening at port {port}"))?;
        let text = format!("{name} at your service, port {port}\n");
        threads.push(thread::spawn(move || accept(&listener, &text)));
    }
    println!("ready");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn accept(listener: &TcpListener, text: &str) -> Infallible {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let text = text.to_owned();
                // Whoever hangs up early has lost nothing that we should care about.
                thread::spawn(move || answer(stream, &text));
            }
            // Too many open files, or a client that has gone already.
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Answers one request of HTTP/1.1 (RFC 9112), whatever it asks for.
fn answer(stream: TcpStream, text: &str) -> std::io::Result<()> {
    /// No request of ours is longer.
    const LONGEST: u64 = 8192;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut writer = stream.try_clone()?;
    let mut lines = BufReader::new(stream.take(LONGEST)).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let length = text.len();
    write!(
        writer,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
}

/// Asks a server. `None` if nobody says anything within `patience`.
pub(crate) fn get(from: &Sandbox, to: SocketAddr, patience: Duration) -> anyhow::Result<Option<String>> {
    let connected = {
        let _inside = from.enter()?;
        TcpStream::connect_timeout(&to, patience)
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("connecting to {to}")),
    };
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("the answer of {to}"))?;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{to} speaks no HTTP: {answer}"))?;
    Ok(Some(body.trim().to_owned()))
}
