//! What people and kubelets do with a cluster.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::stage::{Ask, Pod, Stage, pod, soon};

pub(crate) const YES: &str = "yes";
pub(crate) const SILENCE: &str = "silence";

pub(crate) fn labels(app: &str) -> Value {
    json!({"app": app})
}

/// A policy of namespace `namespace` that admits to pods `app` those with the label `from` only.
pub(crate) fn admits(namespace: &str, app: &str, from: Option<&str>) -> Value {
    let rules: Vec<Value> = from
        .map(|from| json!({"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": from}}}]}))
        .into_iter()
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": format!("{app}-admits"), "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": rules},
    })
}

pub(crate) fn about(from: &str, to: &Pod, answer: &'static str) -> Vec<Ask> {
    let protocols = ["tcp", "udp"].into_iter();
    protocols.flat_map(|protocol| Ask::both(from, to, protocol, 80, answer)).collect()
}

pub(crate) fn everybody_reaches_everybody(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["life"])?;
    let pods = stage.pods(&[
        ("life/a", labels("a"), "n1"),
        ("life/b", labels("b"), "n1"),
        ("life/c", labels("c"), "n2"),
        ("life/d", labels("d"), "n2"),
    ])?;
    let pairs = pods.values().flat_map(|from| pods.values().map(move |to| (from, to)));
    let asks: Vec<Ask> = pairs.flat_map(|(from, to)| about(&from.key, to, YES)).collect();
    stage.expect(&asks)?;
    stage.forget(&["life"])
}

/// Somebody takes the programs off a pod's interface: they are put back, and the node's Events tell.
pub(crate) fn what_stands_wrong_is_an_event(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["events"])?;
    stage.pods(&[("events/a", labels("a"), "n1")])?;
    let links = stage.cluster.nodes[0].room.run("ip", &["-json", "link", "show"])?;
    let links: Value = serde_json::from_str(&links)?;
    let mut names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
    let host_end = names.rfind(|name| name.starts_with("bh")).context("the pod's interface")?;
    stage.cluster.nodes[0].room.run("tc", &["filter", "del", "dev", host_end, "ingress"])?;
    soon("an Event", || {
        let found = stage.kubectl(&["describe", "node", "n1"])?;
        ensure!(found.contains("ProgramsPutBack"), "{found}");
        Ok(())
    })?;
    let fields = "regarding.kind=Node,regarding.name=n1,reason=ProgramsPutBack";
    let found = stage.kubectl(&["get", "events.events.k8s.io", "--field-selector", fields, "-o", "json"])?;
    let events: Value = serde_json::from_str(&found)?;
    let [event] = events["items"].as_array().map(Vec::as_slice).unwrap_or_default() else { bail!("not one: {found}") };
    ensure!([&event["type"], &event["reportingInstance"]] == ["Warning", "n1"], "{event}");
    ensure!(event["note"].as_str().is_some_and(|note| note.contains("put back")), "{event}");
    stage.forget(&["events"])
}

pub(crate) fn probes_pass_under_default_deny(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["probes"])?;
    stage.apply(&[admits("probes", "shut", None)])?;
    // That they become ready is the test: a kubelet connects to port 80 of each before that.
    let pods = stage.pods(&[
        ("probes/near", labels("shut"), "n1"),
        ("probes/far", labels("shut"), "n2"),
        ("probes/client", labels("client"), "n1"),
    ])?;
    let asks: Vec<Ask> =
        ["probes/near", "probes/far"].iter().flat_map(|to| about("probes/client", &pods[*to], SILENCE)).collect();
    stage.expect(&asks)?;
    stage.forget(&["probes"])
}

/// `kubectl port-forward`, until it is dropped.
struct Forward(Child, BufReader<ChildStdout>);

impl Forward {
    /// What it says next.
    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn kubectl_reaches_pods(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["kubectl"])?;
    stage.apply(&[admits("kubectl", "shut", None)])?;
    stage.pods(&[("kubectl/a", labels("shut"), "n1"), ("kubectl/b", labels("shut"), "n2")])?;
    for name in ["a", "b"] {
        let said = stage.exec(&format!("kubectl/{name}"), &["cat", "/etc/hostname"])?;
        ensure!(said.trim() == name, "{said}");
        let log = stage.kubectl(&["logs", "-n", "kubectl", name])?;
        ensure!(log.starts_with("serving "), "{log}");
        let mut forward = stage.cluster.control.program("kubectl");
        forward.args(["port-forward", "-n", "kubectl", &format!("pod/{name}"), ":80"]);
        let mut child = forward.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("output of kubectl")?);
        // Its output stays open: it ends when nobody listens to it.
        let mut forward = Forward(child, output);
        let line = forward.line()?;
        // Forwarding from 127.0.0.1:40123 -> 80
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
        let target = format!("tcp:127.0.0.1:{}", port.with_context(|| format!("kubectl says {line:?}"))?);
        let said = stage.cluster.control.room.run(talk()?, &["ask", "5000", &target])?;
        ensure!(said.starts_with(YES), "{said}");
    }
    stage.forget(&["kubectl"])
}

fn talk() -> anyhow::Result<std::path::PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("a program lies in a folder")?;
    Ok(folder.join("talk"))
}

pub(crate) fn host_network_pods_are_nobody(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["host"])?;
    stage.apply(&[admits("host", "server", Some("friend"))])?;
    let mut pods = stage.pods(&[("host/server", labels("server"), "n1"), ("host/friend", labels("friend"), "n2")])?;
    for node in ["n1", "n2"] {
        stage.host_pod(&format!("host/on-{node}"), &labels("friend"), node)?;
    }
    let server = pods.remove("host/server").context("the server")?;
    let mut asks = about("host/friend", &server, YES);
    // A node may talk to its own pods, whatever their policies say. Another node may not, and the labels of a pod that
    // has its network say nothing.
    asks.extend(about("host/on-n1", &server, YES));
    asks.extend(about("host/on-n2", &server, SILENCE));
    stage.expect(&asks)?;
    stage.forget(&["host"])
}

pub(crate) fn changes_bite_at_once(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["change", "guests"])?;
    let pods = stage.pods(&[
        ("change/server", labels("server"), "n1"),
        ("change/near", labels("friend"), "n1"),
        ("guests/far", labels("stranger"), "n2"),
    ])?;
    let server = &pods["change/server"];
    let both = |near, far| [about("change/near", server, near), about("guests/far", server, far)].concat();
    stage.expect(&both(YES, YES))?;
    stage.apply(&[admits("change", "server", Some("friend"))])?;
    stage.expect(&both(YES, SILENCE))?;
    stage.kubectl(&["label", "pod", "-n", "guests", "far", "app=friend", "--overwrite"])?;
    stage.expect(&both(YES, YES))?;
    stage.kubectl(&["label", "pod", "-n", "change", "near", "app=stranger", "--overwrite"])?;
    stage.expect(&both(SILENCE, YES))?;
    let mut policy = admits("change", "server", Some("friend"));
    policy["spec"]["ingress"] = json!([{"from": [{"namespaceSelector": {"matchLabels": {"trust": "high"}}}]}]);
    stage.apply(&[policy])?;
    stage.expect(&both(SILENCE, SILENCE))?;
    stage.kubectl(&["label", "namespace", "guests", "trust=high"])?;
    stage.expect(&both(SILENCE, YES))?;
    stage.kubectl(&["delete", "networkpolicy", "-n", "change", "--all"])?;
    stage.expect(&both(YES, YES))?;
    stage.forget(&["change", "guests"])
}

pub(crate) fn killing_daemons_costs_nothing(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["kill"])?;
    stage.apply(&[admits("kill", "server", Some("friend"))])?;
    let pods = stage.pods(&[
        ("kill/server", labels("server"), "n1"),
        ("kill/friend", labels("friend"), "n2"),
        ("kill/stranger", labels("stranger"), "n1"),
    ])?;
    let server = &pods["kill/server"];
    let asks = [about("kill/friend", server, YES), about("kill/stranger", server, SILENCE)].concat();
    stage.expect(&asks)?;
    for round in 0..3 {
        for node in &stage.cluster.nodes {
            node.crash_daemon()?;
        }
        // A pod that starts now may have to wait for the daemon, and then starts.
        let key = format!("kill/late-{round}");
        stage.apply(&[pod(&key, &labels("friend"), "n1", json!({}))?])?;
        stage.expect(&asks)?;
        stage.ready(&key)?;
        stage.agents_answer()?;
        stage.expect(&[asks.clone(), about(&key, server, YES)].concat())?;
    }
    stage.forget(&["kill"])
}

pub(crate) fn the_api_server_goes_away_and_comes_back(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["away"])?;
    stage.apply(&[admits("away", "server", Some("friend"))])?;
    let pods = stage.pods(&[
        ("away/server", labels("server"), "n1"),
        ("away/friend", labels("friend"), "n1"),
        ("away/stranger", labels("stranger"), "n1"),
    ])?;
    let server = &pods["away/server"];
    stage.expect(&[about("away/friend", server, YES), about("away/stranger", server, SILENCE)].concat())?;
    stage.cluster.control.stop_api_server()?;
    // No kubectl now: the pods' own network namespaces are entered on their node.
    let holds = |stage: &Stage| {
        for (key, answer) in [("away/friend", YES), ("away/stranger", SILENCE)] {
            let said = ask_on_node(stage, &pods[key], server)?;
            ensure!(said.lines().all(|line| line.starts_with(answer)), "{key}: {said}, not {answer}");
        }
        Ok(())
    };
    let result = holds(stage).and_then(|()| {
        stage.cluster.nodes[0].crash_daemon()?;
        holds(stage)?;
        stage.agents_answer()?;
        holds(stage)
    });
    stage.cluster.control.start_api_server()?;
    result?;
    // What is changed then is told again.
    stage.kubectl(&["delete", "networkpolicy", "-n", "away", "--all"])?;
    stage.expect(&[about("away/friend", server, YES), about("away/stranger", server, YES)].concat())?;
    stage.forget(&["away"])
}

/// A pod that a kubelet starts from a file, without being told by the API server, which has an image of it with another
/// UID. Its labels count.
pub(crate) fn static_pods_are_pods(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["static"])?;
    stage.apply(&[admits("static", "server", Some("friend"))])?;
    let clients =
        stage.pods(&[("static/friend", labels("friend"), "n2"), ("static/stranger", labels("stranger"), "n2")])?;
    let mut server = pod("static/server", &labels("server"), "n1", json!({}))?;
    let spec = server["spec"].as_object_mut().context("a specification")?;
    spec.remove("nodeName");
    let file = stage.cluster.nodes[0].room.outside("/etc/kubernetes/manifests/server.json");
    std::fs::write(&file, server.to_string())?;
    let result =
        soon("the static pod is known", || stage.kubectl(&["get", "pod", "-n", "static", "server-n1"]).map(drop))
            .and_then(|()| {
                let server = stage.ready("static/server-n1")?;
                stage.expect(
                    &[about("static/friend", &server, YES), about("static/stranger", &server, SILENCE)].concat(),
                )?;
                // From it to others as well: it is somebody, whom a policy may name.
                stage.apply(&[admits("static", "friend", Some("server"))])?;
                stage.expect(&about("static/server-n1", &clients["static/friend"], YES))
            });
    std::fs::remove_file(&file)?;
    result?;
    stage.forget(&["static"])
}

/// Asks from a pod's network namespace, without the API server.
fn ask_on_node(stage: &Stage, from: &Pod, to: &Pod) -> anyhow::Result<String> {
    let room = &stage.cluster.nodes[0].room;
    let wanted = from.ips[0].to_string();
    let found = std::fs::read_dir(room.outside("/run/netns"))?.flatten().find(|entry| {
        let netns = format!("--net=/run/netns/{}", entry.file_name().to_string_lossy());
        let addresses = room.run("nsenter", &[&netns, "ip", "-o", "address", "show"]).unwrap_or_default();
        addresses.contains(&format!("inet {wanted}/"))
    });
    let netns = found.with_context(|| format!("no network namespace has {wanted}"))?.file_name();
    let netns = format!("--net=/run/netns/{}", netns.to_string_lossy());
    let targets: Vec<String> = to.ips.iter().map(|ip| format!("tcp:{}", std::net::SocketAddr::new(*ip, 80))).collect();
    let talk = talk()?;
    let program = talk.to_str().context("the path is text")?;
    room.run("nsenter", &[&netns, program, "ask", "700", &targets[0], &targets[1]])
}

pub(crate) fn a_replaced_pod_is_another(stage: &mut Stage) -> anyhow::Result<()> {
    stage.namespaces(&["replace"])?;
    stage.apply(&[admits("replace", "server", Some("friend"))])?;
    let pods = stage.pods(&[("replace/server", labels("server"), "n1"), ("replace/client", labels("friend"), "n2")])?;
    let server = &pods["replace/server"];
    stage.expect(&about("replace/client", server, YES))?;
    for (app, answer) in [("stranger", SILENCE), ("friend", YES)] {
        stage.kubectl(&["delete", "pod", "-n", "replace", "client", "--timeout=60s"])?;
        stage.pods(&[("replace/client", labels(app), "n2")])?;
        stage.expect(&about("replace/client", server, answer))?;
    }
    stage.forget(&["replace"])
}
