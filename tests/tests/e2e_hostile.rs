//! Hostile input on both sockets: bytes that are no HTTP/2, messages that are no protobuf, fields that
//! cannot be, sizes that must not be, connections that never end. The daemon answers with an error or
//! hangs up, and serves the next one. (Hostile manifests: `e2e_change`, and the tests of `objects`.)

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use proto::{
    bulkhead::{
        admin::v1::{self as admin, admin_client::AdminClient},
        cni::v1 as cni,
    },
    flow::FlowFilter,
    observer::{GetFlowsRequest, ServerStatusRequest, observer_client::ObserverClient},
};
use tests::{
    agent::{Agent, Group},
    ask::Ask,
    node::{Node, PATIENCE, Setup, eventually, holds_anything},
    plugin::Call,
    traffic::{Echo, OPEN, Protocol::Tcp, Reached, reach},
    trial::trial,
};
use tonic::Code;

/// Fails unless the daemon is the same process as before, and serves.
fn serves(node: &mut Node, pid: u32) -> anyhow::Result<()> {
    ensure!(node.agent()?.pid() == pid);
    node.ask()?.status().context("the API")?;
    node.plugin().call(Call::bare("STATUS"))?.result().context("the plugin")?;
    Ok(())
}

/// Sends bytes and reads until the daemon hangs up, has nothing to say, or time is over.
fn shout(socket: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    // It may hang up in the middle: that is an answer.
    let _ = stream.write_all(bytes);
    let mut answer = [0; 4096];
    while matches!(stream.read(&mut answer), Ok(length) if length > 0) {}
    Ok(())
}

/// Bytes that look random and are the same every time (xorshift64).
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn garbage_on_the_sockets_is_survived() {
    trial(|| {
        let mut node = Node::start(&[])?;
        let pid = node.agent()?.pid();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // An HTTP/2 frame (RFC 9113, section 4.1): length, type, flags, stream.
        let frame = |length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]| {
            [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
        };
        let settings = frame(0, 4, 0, 0, &[]);
        let with_preface = |more: &[u8]| [&preface[..], &settings, more].concat();
        let mut shouts = vec![
            Vec::new(),
            b"\0".to_vec(),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            preface.clone(),
            preface[..10].to_vec(),
            // A frame longer than allowed, of an unknown kind, DATA on no stream, SETTINGS that lie.
            with_preface(&frame(0xff_ffff, 0, 0, 1, &[0; 64])),
            with_preface(&frame(8, 0x77, 0xff, 0x7fff_ffff, &[0xff; 8])),
            with_preface(&frame(8, 0, 1, 0, &[0; 8])),
            with_preface(&frame(6, 4, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
            with_preface(&frame(5, 4, 0, 0, &[1; 5])),
            // Headers that are no HPACK, then CONTINUATION without end.
            with_preface(&frame(16, 1, 5, 1, &[0xff; 16])),
            with_preface(&(0..200).flat_map(|_| frame(16, 9, 0, 1, &[0x40; 16])).collect::<Vec<u8>>()),
            // A hundred thousand streams that are reset at once (CVE-2023-44487).
            with_preface(
                &(0..20_000_u32)
                    .flat_map(|number| {
                        let stream = 2 * number + 1;
                        [frame(3, 1, 4, stream, &[0x82, 0x86, 0x84]), frame(4, 3, 0, stream, &[0; 4])].concat()
                    })
                    .collect::<Vec<u8>>(),
            ),
        ];
        shouts.extend((1..20).map(|seed| noise(4096, seed)));
        shouts.extend((1..20).map(|seed| with_preface(&noise(4096, seed))));
        for bytes in &shouts {
            for socket in [node.cni_socket(), node.api_socket()] {
                shout(&socket, bytes)?;
            }
        }
        serves(&mut node, pid)
    });
}

#[test]
fn connections_that_say_nothing_hinder_nobody() {
    trial(|| {
        let mut node = Node::start(&[])?;
        let pid = node.agent()?.pid();
        let mut silent = Vec::new();
        for _ in 0..200 {
            for socket in [node.cni_socket(), node.api_socket()] {
                silent.push(UnixStream::connect(socket)?);
            }
        }
        serves(&mut node, pid)?;
        node.add("shop/web")?.del()?;
        drop(silent);
        serves(&mut node, pid)
    });
}

#[test]
fn cni_requests_with_wrong_fields_get_an_error_that_names_them() {
    trial(|| {
        let mut node = Node::start(&[])?;
        let pid = node.agent()?.pid();
        let blank = node.blank("shop/web")?;
        let good = cni::AddRequest {
            id: Some(cni::AttachmentId { container_id: "c1".into(), ifname: "eth0".into() }),
            netns: Some(cni::Netns { path: blank.sandbox.path().display().to_string(), inode: 0 }),
            network: Some(cni::Network { name: "n".into(), cni_version: "1.1.0".into(), mtu: 0 }),
            pod: Some(cni::Pod { namespace: "shop".into(), name: "web".into(), ..Default::default() }),
            ..Default::default()
        };
        let id = |container_id: &str, ifname: &str| {
            Some(cni::AttachmentId { container_id: container_id.into(), ifname: ifname.into() })
        };
        let netns = |path: &str| Some(cni::Netns { path: path.into(), inode: 0 });
        let pod = |namespace: &str, name: &str| {
            Some(cni::Pod { namespace: namespace.into(), name: name.into(), ..Default::default() })
        };
        let huge = "x".repeat(100_000);
        let ask = Ask::at(&node.cni_socket())?;
        for (request, code, names) in [
            (cni::AddRequest::default(), 4, "id"),
            (cni::AddRequest { id: id("", "eth0"), ..good.clone() }, 4, "id.container_id"),
            (cni::AddRequest { id: id("../../etc", "eth0"), ..good.clone() }, 4, "id.container_id"),
            (cni::AddRequest { id: id(&huge, "eth0"), ..good.clone() }, 4, "id.container_id"),
            (cni::AddRequest { id: id("c1", "a/b"), ..good.clone() }, 4, "id.ifname"),
            (cni::AddRequest { id: id("c1", &huge), ..good.clone() }, 4, "id.ifname"),
            (cni::AddRequest { netns: None, ..good.clone() }, 4, "netns"),
            (cni::AddRequest { netns: netns("relative"), ..good.clone() }, 4, "netns.path"),
            (cni::AddRequest { netns: netns("/a\0b"), ..good.clone() }, 4, "netns.path"),
            (cni::AddRequest { netns: netns("/no/such"), ..good.clone() }, 4, "/no/such"),
            (cni::AddRequest { netns: netns("/dev/zero"), ..good.clone() }, 4, "/dev/zero"),
            (cni::AddRequest { netns: netns("/proc/self/ns/mnt"), ..good.clone() }, 4, "namespace"),
            (cni::AddRequest { netns: netns("/proc/self/ns/net"), ..good.clone() }, 4, "the node's own"),
            (cni::AddRequest { pod: pod("a/b", "c"), ..good.clone() }, 4, "pod.namespace"),
            (cni::AddRequest { pod: pod("a", "b\n"), ..good.clone() }, 4, "pod.name"),
            (cni::AddRequest { pod: pod("a", &huge), ..good.clone() }, 4, "pod.name"),
            (cni::AddRequest { mac: "no mac".into(), ..good.clone() }, 7, "mac"),
            (cni::AddRequest { mac: "01:00:5e:00:00:01".into(), ..good.clone() }, 7, "mac"),
            (cni::AddRequest { ips: vec!["10.0.0.0/8".into()], ..good.clone() }, 7, "ips"),
            (cni::AddRequest { ips: vec!["8.8.8.8".into()], ..good.clone() }, 7, "8.8.8.8"),
            (cni::AddRequest { ips: vec!["10.77.0.1".into()], ..good.clone() }, 7, "10.77.0.1"),
            (cni::AddRequest { ips: vec!["10.77.0.9".into(), "10.77.0.10".into()], ..good.clone() }, 7, "10.77.0"),
            (
                cni::AddRequest { network: Some(cni::Network { mtu: 10, ..Default::default() }), ..good.clone() },
                7,
                "mtu",
            ),
        ] {
            let mut client = ask.cni();
            let shown = format!("{request:?}").chars().take(300).collect::<String>();
            let reply = ask.wait(async move { client.add(request).await }).with_context(|| shown.clone())?.into_inner();
            let Some(cni::add_reply::Outcome::Error(error)) = reply.outcome else {
                anyhow::bail!("{shown} was served: {reply:?}");
            };
            ensure!(error.code == code && error.msg.contains(names), "{shown}: {error:?}, wanted {code}, {names}");
            ensure!(error.msg.len() < 2000, "an answer of {} bytes", error.msg.len());
        }
        let mut client = ask.cni();
        let reply = ask.wait(async move { client.del(cni::DelRequest::default()).await })?.into_inner();
        ensure!(reply.error.is_some_and(|error| error.msg.contains("id")));
        let mut client = ask.cni();
        let nobody = cni::AttachmentList { ids: vec![cni::AttachmentId::default()] };
        let request = cni::GcRequest { network: None, valid_attachments: Some(nobody) };
        let reply = ask.wait(async move { client.gc(request).await })?.into_inner();
        ensure!(reply.error.is_some() && reply.removed == 0);

        // More than a message may have: 4 MiB in tonic and in every other gRPC server.
        let mut client = ask.cni();
        let request = cni::AddRequest { cgroup_path: "x".repeat(8 << 20), ..good.clone() };
        let refused = ask.wait(async move { client.add(request).await }).expect_err("8 MiB are refused");
        let status = refused.downcast_ref::<tonic::Status>().context("a status")?;
        ensure!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");

        ensure!(node.ask()?.endpoints()?.is_empty());
        serves(&mut node, pid)?;
        let pod = blank.add()?;
        pod.call("CHECK")?.result()?;
        Ok(())
    });
}

#[test]
fn api_requests_with_wrong_fields_get_an_error_that_names_them() {
    trial(|| {
        let mut node = Node::start(&[])?;
        let pid = node.agent()?.pid();
        let ask = node.ask()?;
        let ip = |ip: &str| FlowFilter { source_ip: vec![ip.into()], ..Default::default() };
        for (filter, names) in [
            (ip("10.0.0.0/99"), "source_ip"),
            (ip("nonsense"), "source_ip"),
            (FlowFilter { source_label: vec!["a in (".into()], ..Default::default() }, "source_label"),
            (FlowFilter { destination_port: vec!["http".into()], ..Default::default() }, "destination_port"),
            (FlowFilter { destination_port: vec!["99999".into()], ..Default::default() }, "destination_port"),
            (FlowFilter { protocol: vec!["carrier-pigeon".into()], ..Default::default() }, "protocol"),
        ] {
            let request = GetFlowsRequest { number: 1, whitelist: vec![filter.clone()], ..Default::default() };
            let mut client = ObserverClient::new(ask.channel());
            let found = ask.wait(async move {
                let mut stream = client.get_flows(request).await?.into_inner();
                stream.message().await
            });
            let error = found.err().with_context(|| format!("{filter:?} was served"))?;
            let status = error.downcast_ref::<tonic::Status>().context("a status")?;
            ensure!(status.code() == Code::InvalidArgument, "{filter:?}: {status:?}");
            ensure!(status.message().contains(names), "{filter:?}: {status:?}, wanted {names}");
        }
        // A hundred thousand filters, numbers at their limits.
        let many = vec![ip("10.0.0.1"); 100_000];
        for request in [
            GetFlowsRequest { whitelist: many, number: 1, ..Default::default() },
            GetFlowsRequest { number: u64::MAX, first: true, ..Default::default() },
            GetFlowsRequest {
                since: Some(prost_types::Timestamp { seconds: i64::MIN, nanos: i32::MIN }),
                until: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX }),
                ..Default::default()
            },
        ] {
            let mut client = ObserverClient::new(ask.channel());
            let _ = ask.wait(async move {
                let mut stream = client.get_flows(request).await?.into_inner();
                while stream.message().await?.is_some() {}
                Ok(())
            });
        }
        let mut observer = ObserverClient::new(ask.channel());
        ask.wait(async move { observer.server_status(ServerStatusRequest {}).await })?;

        let party = |name: &str| {
            Some(admin::Party {
                who: Some(admin::party::Who::Pod(admin::PodName { namespace: "shop".into(), name: name.into() })),
            })
        };
        for (request, names) in [
            (admin::ExplainRequest::default(), "source"),
            (admin::ExplainRequest { source: party("a"), ..Default::default() }, "destination"),
            (
                admin::ExplainRequest {
                    source: party("a"),
                    destination: party("b"),
                    protocol: "tcp".into(),
                    port: 70_000,
                },
                "70000",
            ),
            (
                admin::ExplainRequest { source: party("a"), destination: party("b"), protocol: "x".into(), port: 1 },
                "protocol",
            ),
        ] {
            let mut client = AdminClient::new(ask.channel());
            let shown = format!("{request:?}");
            let error = ask.wait(async move { client.explain(request).await }).err().context(shown.clone())?;
            let status = error.downcast_ref::<tonic::Status>().context("a status")?;
            ensure!(matches!(status.code(), Code::InvalidArgument | Code::NotFound), "{shown}: {status:?}");
            ensure!(status.message().contains(names), "{shown}: {status:?}, wanted {names}");
        }
        let mut client = AdminClient::new(ask.channel());
        let request = admin::DumpMapsRequest { maps: vec!["NO_SUCH_MAP".into()], limit: 0 };
        let error = ask.wait(async move { client.dump_maps(request).await }).err().context("there is no such map")?;
        ensure!(error.to_string().contains("NO_SUCH_MAP"), "{error}");
        serves(&mut node, pid)
    });
}

#[test]
fn the_sockets_are_for_root_only() {
    trial(|| {
        let node = Node::start(&[])?;
        for socket in [node.cni_socket(), node.api_socket()] {
            let metadata = fs::symlink_metadata(&socket)?;
            ensure!(metadata.file_type().is_socket());
            ensure!(
                metadata.permissions().mode() & 0o777 == 0o600,
                "{}: {:o}",
                socket.display(),
                metadata.permissions().mode()
            );
        }
        let state = fs::metadata(node.state())?.permissions().mode() & 0o777;
        ensure!(state == 0o700, "the state folder: {state:o}");
        Ok(())
    });
}

#[test]
fn wrong_flags_are_refused_with_what_is_right() {
    trial(|| {
        let node = Node::without_daemon(Setup::default(), &[])?;
        let source = format!("--source=directory:{}", node.objects().display());
        for (arguments, code, says) in [
            (&["--source=/etc"][..], 64, "directory:PATH"),
            (&["--source=directory:/no/such/folder"], 1, "/no/such/folder"),
            (&[&source, "--pool=10.0.0.0/33"], 64, "10.0.0.0/33"),
            (&[&source, "--pool=10.0.0.0/31"], 64, "10.0.0.0/31"),
            (&[&source, "--map-capacity=NO_SUCH=1"], 64, "NO_SUCH"),
            (&[&source, "--map-capacity=PEERS"], 64, "MAP=ENTRIES"),
            (&[&source, "--map-capacity=PEERS=0"], 64, "PEERS"),
            (&[&source, "--mtu=100"], 64, "1280"),
            (&[&source, "--state-dir=relative"], 64, "--state-dir"),
            (&[&source, "--pin-dir=/tmp"], 1, "bpffs"),
            (&[&source, "--metrics=nonsense"], 64, "ADDRESS:PORT"),
            (&[&source, "--no-such-flag"], 64, "--no-such-flag"),
            (&[], 64, "--source"),
        ] {
            let mut all = vec!["run".to_owned()];
            all.extend(arguments.iter().map(|&argument| argument.to_owned()));
            // What is not asked about must harm nobody, should it be taken.
            for place in node.places() {
                let (flag, _) = place.split_once('=').context("--flag=value")?;
                if !arguments.iter().any(|argument| argument.starts_with(flag)) {
                    all.push(place);
                }
            }
            let log = node.folder().join("refused.log");
            let mut agent = Agent::start(&node.sandbox, &all, Group::Ours, &log)?;
            let ended = eventually(PATIENCE, || Ok(agent.must_run().is_err()))?;
            ensure!(ended, "{arguments:?} were taken");
            let said = fs::read_to_string(&log)?;
            ensure!(said.contains(says), "{arguments:?}: {said}, wanted {says}");
            let found = agent.code()?;
            ensure!(found == Some(code), "{arguments:?}: exit status {found:?}, wanted {code}: {said}");
            fs::remove_file(&log)?;
        }
        ensure!(!node.pins().exists() || !holds_anything(&node.pins()), "maps were pinned for nothing");
        Ok(())
    });
}

/// A peer that reads nothing of what it has asked for must not hold up others, nor the datapath.
#[test]
fn a_reader_that_reads_nothing_hinders_nobody() {
    trial(|| {
        let mut node = Node::start(&[])?;
        let pid = node.agent()?.pid();
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let ask = node.ask()?;
        let mut client = ObserverClient::new(ask.channel());
        let request = GetFlowsRequest { follow: true, number: 1, ..Default::default() };
        let stream = ask.wait(async move { client.get_flows(request).await })?;
        for _ in 0..200 {
            ensure!(reach(&web.sandbox, Tcp, db.at(80)[0], OPEN)? == Reached::Yes);
        }
        let told = || Ok(node.bulkhead().flows(&["--to-pod", "shop/db"])?.len() >= 200);
        ensure!(eventually(PATIENCE, told)?, "{}", node.bulkhead().flows(&["--to-pod", "shop/db"])?.len());
        drop(stream);
        serves(&mut node, pid)
    });
}
