//! Golden text files in `testdata`: objects, questions, answers, readable as documentation.
//!
//! A file is paragraphs. One that begins with `#` is a comment; any other is a question, a line
//! `----`, and the answer. `UPDATE_GOLDEN=1` writes the answers that the code gives.
//!
//! ```text
//! objects           \n lines as in `policy::fixture::text`: starts over with these
//! apply             \n the same, on top; answers what was touched
//! delete            \n `pod a/b`, `namespace a`, `policy a/b`, one a line; answers the same
//! table DIRECTION POD      rules in the API's terms
//! entries DIRECTION POD    rules in the map's terms, with a legend
//! staged DIRECTION POD     the same if the staged policies were enforced
//! digest DIRECTION POD     digest of the table
//! identities               what each pod's identity is
//! verdicts          \n `SOURCE -> DESTINATION PROTO/PORT`, one a line
//! explain           \n the same
//! tiers DIRECTION by label|network   what comes out of each combination of what the tiers say
//! ```

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use datapath_abi::policy::Direction;
use policy::compile::{compile, compile_staged};
use policy::explain::explain;
use policy::fixture::{key, proto_port, text};
use policy::index::{Index, Touched};
use policy::lower::{CookieTable, lower};
use policy::model::{Object, ObjectKey, PolicyRef};
use policy::oracle::Oracle;
use policy::world::{Flow, Nodes, World};

#[test]
fn answers_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(files.len() >= 8, "{} holds too few files", folder.display());
    let mut wrong = Vec::new();
    for path in files {
        let written = std::fs::read_to_string(&path).unwrap();
        let answered = answer_file(&written);
        if written == answered {
            continue;
        }
        if update {
            std::fs::write(&path, answered).unwrap();
        } else {
            wrong.push(format!("{}\n{}", path.display(), difference(&written, &answered)));
        }
    }
    assert!(wrong.is_empty(), "run with UPDATE_GOLDEN=1 and read the difference\n{}", wrong.join("\n"));
}

fn answer_file(text: &str) -> String {
    let mut scene = Scene::default();
    let mut paragraphs = Vec::new();
    for paragraph in text.trim_end().split("\n\n").map(str::trim_end).filter(|it| !it.is_empty()) {
        if paragraph.starts_with('#') {
            paragraphs.push(paragraph.to_owned());
            continue;
        }
        let (question, _) = paragraph.split_once("----").unwrap_or((paragraph, ""));
        let question = question.trim_end();
        let answer = scene.answer(question);
        paragraphs.push(format!("{question}\n----\n{}", answer.trim_end()));
    }
    paragraphs.join("\n\n") + "\n"
}

fn difference(written: &str, answered: &str) -> String {
    let pairs = written.lines().zip(answered.lines()).enumerate();
    match pairs.into_iter().find(|(_, (written, answered))| written != answered) {
        Some((line, (written, answered))) => format!("line {}:\n  written {written}\n  got     {answered}", line + 1),
        None => format!("{} lines written, got {}", written.lines().count(), answered.lines().count()),
    }
}

#[derive(Default)]
struct Scene {
    index: Index,
}

impl Scene {
    fn answer(&mut self, question: &str) -> String {
        let (head, lines) = question.split_once('\n').unwrap_or((question, ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        match words.as_slice() {
            ["objects"] => {
                self.index = Index::default();
                let objects = text::parse(lines).unwrap();
                let count = objects.len();
                for object in objects {
                    self.index.apply(object);
                }
                format!("{count} objects")
            }
            ["apply"] => {
                let mut touched = Touched::default();
                for object in text::parse(lines).unwrap() {
                    touched.merge(self.index.apply(object));
                }
                show_touched(&touched)
            }
            ["delete"] => {
                let mut touched = Touched::default();
                for line in lines.lines() {
                    touched.merge(self.index.delete(&object_key(line)));
                }
                show_touched(&touched)
            }
            ["table", direction, pod] => compile(&self.index, &key(pod), self::direction(direction)).to_string(),
            ["staged", direction, pod] => match compile_staged(&self.index, &key(pod), self::direction(direction)) {
                Some(table) => table.to_string(),
                None => "no staged policy has a say".to_owned(),
            },
            ["tiers", direction, "by", peer] => tiers(self::direction(direction), peer),
            ["digest", direction, pod] => {
                let digest = compile(&self.index, &key(pod), self::direction(direction)).digest();
                digest.iter().map(|byte| format!("{byte:02x}")).collect()
            }
            ["entries", direction, pod] => self.entries(self::direction(direction), pod),
            ["identities"] => self.identities(),
            ["verdicts"] => lines.lines().map(|line| format!("{line}: {}\n", self.verdict(line))).collect(),
            ["explain"] => {
                lines.lines().map(|line| explain(&self.world(), &self.flow(line)).unwrap().to_string()).collect()
            }
            _ => panic!("unknown question {head:?}"),
        }
    }

    /// Node 192.168.0.1 is the pods' own.
    fn world(&self) -> World<'_> {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let nodes = Nodes { local: [ip("192.168.0.1")].into(), others: [ip("192.168.0.2")].into() };
        World::new(&self.index).with_nodes(nodes)
    }

    fn entries(&self, direction: Direction, pod: &str) -> String {
        let world = self.world();
        let mut cookies = CookieTable::default();
        let rules = match lower(&compile(&self.index, &key(pod), direction), world.universe(), &mut cookies) {
            Ok(rules) => rules,
            Err(error) => return error.to_string(),
        };
        let mut answer = rules.to_string();
        for (number, identity) in world.universe().iter().filter(|(number, _)| rules.peers.contains_key(number)) {
            let pods: Vec<String> = identity.pods().keys().map(ToString::to_string).collect();
            writeln!(answer, "{number} = {}", pods.join(", ")).unwrap();
        }
        for cookie in 1.. {
            let Some(rule) = cookies.rule(cookie) else { break };
            writeln!(answer, "#{cookie} = {rule}").unwrap();
        }
        answer
    }

    fn identities(&self) -> String {
        let mut answer = String::new();
        for pod in self.index.pods() {
            let identity = self.index.identity_key(&pod.key);
            let identity = identity.map_or_else(|| "none".to_owned(), |identity| identity.to_string());
            writeln!(answer, "{}: {identity}", pod.key).unwrap();
        }
        answer
    }

    fn flow(&self, line: &str) -> Flow {
        let mut words = line.split_whitespace();
        let (Some(source), Some("->"), Some(destination), Some(port)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            panic!("{line:?} is not SOURCE -> DESTINATION PROTO/PORT")
        };
        let (proto, port) = proto_port(port);
        self.world().flow(&source.parse().unwrap(), &destination.parse().unwrap(), proto, port).unwrap()
    }

    /// The verdict of the entries. The oracle must agree, lest a wrong answer be written down.
    fn verdict(&self, line: &str) -> String {
        let flow = self.flow(line);
        let verdict = self.world().verdict(&flow).unwrap();
        let all = self.index.namespaces().cloned().map(Object::from);
        let all = all.chain(self.index.pods().cloned().map(Object::from));
        let all = all.chain(self.index.nodes().cloned().map(Object::from));
        let all = all.chain(self.index.cluster_policies().cloned().map(Object::from));
        let oracle = Oracle::new(all.chain(self.index.network_policies().cloned().map(Object::from)));
        assert_eq!(verdict.passes(), oracle.allows(&flow), "{line}");
        match verdict.passes() {
            true => "allowed".to_owned(),
            false if !verdict.egress.passes() => format!("denied: egress {}", verdict.egress),
            false => format!("denied: ingress {}", verdict.ingress),
        }
    }
}

/// What every combination of the tiers says about a flow that all their rules match, but for the
/// NetworkPolicy's where it says so.
fn tiers(direction: Direction, by: &str) -> String {
    let mut answer = String::new();
    let (way, other, flow) = match direction {
        Direction::Ingress => ("ingress", "from", "b/other -> a/web TCP/80"),
        Direction::Egress => ("egress", "to", "a/web -> b/other TCP/80"),
    };
    let peer = match (by, direction) {
        ("label", _) => "{app=other} in {}",
        ("network", Direction::Egress) => "10.0.1.0/24",
        // The API has no networks for ingress; the compiler does not know that.
        ("network", Direction::Ingress) => "10.0.1.0/24",
        _ => panic!("{by:?} is neither label nor network"),
    };
    let actions = ["none", "accept", "deny", "pass"];
    let written = |name: &str, tier: &str, action: &str| match action {
        "none" => String::new(),
        action => {
            format!("cluster {name} {tier} 10 {{app=web}} in {{}}\n  {way} {action} {other} {peer} ports TCP/80\n")
        }
    };
    for admin in actions {
        for network_policy in ["none", "allows", "isolates"] {
            for baseline in actions {
                let ports = if network_policy == "allows" { "TCP/80" } else { "TCP/81" };
                let rules = match network_policy {
                    "none" => String::new(),
                    _ => format!("policy a/np {{app=web}}\n  {way} {other} {peer} ports {ports}\n"),
                };
                let text = format!(
                    "pod a/web app=web ip=10.0.0.1\npod b/other app=other ip=10.0.1.1\n{}{rules}{}",
                    written("admin", "admin", admin),
                    written("baseline", "baseline", baseline)
                );
                let mut scene = Scene::default();
                for object in text::parse(&text).unwrap() {
                    scene.index.apply(object);
                }
                // Holds the oracle against it.
                scene.verdict(flow);
                let side = scene.world().side(direction, &scene.flow(flow)).unwrap();
                let passes = if side.passes() { "passes" } else { "denied" };
                writeln!(answer, "{admin:<6} | {network_policy:<8} | {baseline:<6} -> {passes}: {side}").unwrap();
            }
        }
    }
    answer
}

fn direction(word: &str) -> Direction {
    match word {
        "ingress" => Direction::Ingress,
        "egress" => Direction::Egress,
        other => panic!("{other:?} is no direction"),
    }
}

fn object_key(line: &str) -> ObjectKey {
    match line.trim().split_once(' ') {
        Some(("pod", path)) => ObjectKey::Pod(key(path)),
        Some(("namespace", name)) => ObjectKey::Namespace(name.to_owned()),
        Some(("node", name)) => ObjectKey::Node(name.to_owned()),
        Some(("cluster", name)) => ObjectKey::Policy(PolicyRef::cluster(name)),
        Some(("policy", path)) => {
            let key = key(path);
            ObjectKey::Policy(PolicyRef::network_policy(&key.namespace, &key.name))
        }
        _ => panic!("{line:?} names no object"),
    }
}

fn show_touched(touched: &Touched) -> String {
    let list = |name: &str, keys: &std::collections::BTreeSet<_>| {
        let keys: Vec<String> = keys.iter().map(|key: &policy::model::PodKey| key.to_string()).collect();
        format!("{name}: {}\n", if keys.is_empty() { "none".to_owned() } else { keys.join(", ") })
    };
    list("rules", &touched.rules) + &list("identities", &touched.identities)
}
