//! What goes wrong, with its exit code and the fix that is named.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
        process::CommandExt,
    },
    path::Path,
    thread,
};

use tonic::Status;

use crate::fake::{Answers, Ended, Fake, bulkhead, bulkhead_at, finish, run};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const DENIED: i32 = 77;

/// Nothing on stdout, this code, and all of these words on stderr.
#[track_caller]
fn assert_fails(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in: {}", ended.stderr);
    }
}

#[test]
fn no_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    for args in [&["status"][..], &["flows"], &["endpoint", "list"], &["explain", "a/b", "c/d:1"], &["dump"]] {
        let ended = run(&socket, args);
        assert_eq!(
            ended.stderr,
            "bulkhead: no daemon is there: SOCKET does not exist\n  fix: start it (systemctl start bulkhead-daemon), \
             or name its socket with --server or BULKHEAD_SERVER\n"
        );
        assert_fails(&ended, UNAVAILABLE, &[]);
    }
}

#[test]
fn a_socket_that_a_dead_daemon_left() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let ended = run(&socket, &["status"]);
    assert_fails(&ended, UNAVAILABLE, &["nobody listens on SOCKET", "has left it behind", "fix: start it"]);
}

#[test]
fn not_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("api.sock");
    fs::write(&file, "").unwrap();
    assert_fails(&run(&file, &["status"]), UNAVAILABLE, &["SOCKET is not a socket", "--server"]);
}

#[test]
fn a_daemon_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let _never_accepts = UnixListener::bind(&socket).unwrap();
    for args in [&["status"][..], &["flows", "--follow"], &["dump"]] {
        let ended = run(&socket, &[&["--timeout", "200ms"], args].concat());
        assert_fails(&ended, UNAVAILABLE, &["got no answer in time", "--timeout", "journalctl -u bulkhead-daemon"]);
    }
}

#[test]
fn something_else_that_listens() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\nno HTTP/2 at all, and a good day to you\r\n");
    });
    let ended = run(&socket, &["--timeout", "5s", "status"]);
    assert_fails(&ended, UNAVAILABLE, &["the connection to SOCKET broke", "is it a bulkhead-daemon"]);
    server.join().unwrap();
}

#[test]
fn a_socket_that_is_not_ours() {
    let fake = Fake::start(Answers::default());
    let socket = fake.socket();
    let us = fs::metadata("/proc/self").unwrap().uid();
    // Root may use every socket, so the test has to be somebody else then: nobody, with a copy of
    // the binary that nobody may read.
    let public = tempfile::tempdir().unwrap();
    fs::set_permissions(public.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = public.path().join("bulkhead");
    fs::copy(env!("CARGO_BIN_EXE_bulkhead"), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let somebody = if us == 0 { 65_534 } else { us };
    let status = || {
        let mut command = bulkhead_at(&binary, &socket, &["status"]);
        if us == 0 {
            command.uid(somebody).gid(somebody);
        }
        finish(command, &socket)
    };
    let folder = socket.parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o000)).unwrap();
    let ended = status();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert_fails(&ended, DENIED, &["the socket SOCKET is not ours to use: its folder is closed to us", "sudo"]);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    let ended = status();
    let who = format!("belongs to user {us} with mode 0000, we are user {somebody}");
    assert_fails(&ended, DENIED, &["the socket SOCKET is not ours to use", &who, "fix: run it with sudo"]);
}

#[test]
fn what_the_daemon_refuses() {
    for (status, code, words) in [
        (Status::not_found("no endpoint 10.0.0.9"), 1, &["bulkhead: no endpoint 10.0.0.9\n"][..]),
        (Status::invalid_argument("label selector: unexpected ')'"), USAGE, &["label selector"]),
        (Status::permission_denied("not you"), DENIED, &["refuses: not you", "sudo"]),
        (Status::unavailable("source not read yet"), UNAVAILABLE, &["is not ready: source not read yet"]),
        (Status::unimplemented(""), 1, &["does not know the request \"status\"", "bulkhead version"]),
        (Status::deadline_exceeded(""), UNAVAILABLE, &["no answer in time"]),
        (Status::internal("map is gone"), 1, &["could not answer \"status\"", "map is gone", "journalctl"]),
        // Whatever the daemon says, the terminal stays whole.
        (Status::not_found("evil \u{1b}[2J name"), 1, &["evil \\u{1b}[2J name"]),
    ] {
        let fake = Fake::start(Answers { refuse: Some(status), ..Answers::default() });
        assert_fails(&fake.run(&["status"]), code, words);
    }
}

#[test]
fn a_wrong_command_line() {
    let nowhere = Path::new("/nonexistent/api.sock");
    for (args, word) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["frobnicate"], "frobnicate"),
        (&["endpoint"], "Usage: bulkhead endpoint"),
        (&["endpoint", "get"], "ENDPOINT"),
        (&["endpoint", "get", "web-0"], "container id"),
        (&["endpoint", "list", "-n", "Shop"], "cannot be a namespace"),
        (&["policy", "get", "db", "--kind", "NetworkPolicy"], "NAMESPACE/db"),
        (&["policy", "get", "a/b/c"], "NAMESPACE/NAME"),
        (&["dump", "NOPE"], "CONNTRACK"),
        (&["dump", "EVENTS"], "CONNTRACK"),
        (&["-o", "yaml", "status"], "json"),
        (&["--timeout", "0s", "status"], "never be met"),
        (&["--timeout", "soon", "status"], "1h30m"),
        (&["--server", "http://localhost:4245", "status"], "unix:///"),
        (&["explain", "shop/web-0"], "DST"),
        (&["explain", "shop/web-0", "shop/db-0"], "needs a port"),
        (&["explain", "web-0", "shop/db-0:1"], "shop/Deployment/web"),
        (&["explain", "a/b", "c/d:1", "--port", "2"], "name the port once"),
        (&["explain", "a/b", "c/d:1", "--protocol", "icmp"], "has no ports"),
        (&["explain", "a/b", "c/d", "--port", "65536"], "65535"),
        (&["explain", "a/b", "c/d:1", "--protocol", "quic"], "sctp"),
        (&["completion", "tcsh"], "fish"),
        (&["flows", "--first", "5", "--follow"], "--follow"),
        (&["flows", "--last", "0"], "0"),
        (&["flows", "--last", "5", "--first", "5"], "--first"),
        (&["flows", "--until", "1m", "--follow"], "--follow"),
        (&["flows", "--since", "yesterday"], "2026-01-02T03:04:05Z"),
        (&["flows", "--since", "1m", "--until", "5m"], "later than --until"),
        (&["flows", "--not"], "right before"),
        (&["flows", "--by", "pod"], "--top"),
        (&["flows", "--top", "winners"], "talkers"),
        (&["flows", "--top", "ports", "--dir", "/tmp", "-o", "csv"], "-o json"),
        (&["flows", "--verdict", "maybe"], "denied"),
        (&["flows", "--ip", "10.0.0.1", "--to-ip", "10.0.0.2"], "--from-ip"),
    ] {
        let ended = run(nowhere, args);
        assert_fails(&ended, USAGE, &[word]);
    }
}

#[test]
fn no_arguments_print_the_help_and_fail() {
    let nowhere = Path::new("/nonexistent/api.sock");
    let mut command = bulkhead(nowhere, &[]);
    command.env_remove("BULKHEAD_SERVER");
    assert_fails(&finish(command, nowhere), USAGE, &["Usage: bulkhead", "Exit codes:"]);
}

#[test]
fn the_option_goes_before_the_environment() {
    let fake = Fake::start(Answers::default());
    let socket = format!("unix://{}", fake.socket().display());
    let ended = run(Path::new("/nonexistent/api.sock"), &["endpoint", "list", "--server", &socket]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}
