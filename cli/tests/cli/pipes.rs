//! A reader that has seen enough is no error.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    fake::{Answers, Fake, bulkhead, run},
    shop, shop_flows,
};

/// Runs, reads one line of the output, closes the pipe: exit code and stderr.
fn head(fake: &Fake, args: &[&str]) -> (Option<i32>, String) {
    let mut child = bulkhead(&fake.socket(), args).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{args:?} goes on without a reader");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), stderr)
}

#[test]
fn head_ends_a_stream_quietly() {
    let flows = vec![shop_flows::allowed(); 20_000];
    let maps = vec![shop::answers().maps[0].clone(); 20_000];
    let fake = Fake::start(Answers { flows, maps, ..shop::answers() });
    for args in [
        &["flows", "--all"][..],
        &["flows", "--all", "-o", "json"],
        &["flows", "--follow", "--all"],
        &["dump"],
        &["dump", "-o", "json"],
    ] {
        assert_eq!(head(&fake, args), (Some(0), String::new()), "{args:?}");
    }
}

#[test]
fn head_ends_a_silent_stream_as_well() {
    let fake = Fake::start(Answers { flows: vec![shop_flows::allowed()], ..Answers::default() });
    assert_eq!(head(&fake, &["flows", "--follow"]), (Some(0), String::new()));
}

#[test]
fn a_closed_pipe_does_not_change_the_answer() {
    let fake = Fake::start(shop::answers());
    let mut child = bulkhead(&fake.socket(), &["explain", "shop/cache-0", "shop/db-0:5432"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let fake = Fake::start(shop::answers());
    let mut command = bulkhead(&fake.socket(), &["status"]);
    command.stdout(Stdio::from(File::options().write(true).open("/dev/full").unwrap()));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cannot write the output"), "{stderr}");
}

#[test]
fn help_into_a_closed_pipe_is_quiet_as_well() {
    let fake = Fake::start(Answers::default());
    assert_eq!(run(&fake.socket(), &["--help"]).stderr, "");
    assert_eq!(head(&fake, &["flows", "--help"]), (Some(0), String::new()));
}
