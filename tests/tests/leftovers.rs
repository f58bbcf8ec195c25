//! What an earlier daemon, an administrator or a broken disk has left on the node: taken over where it
//! can be understood, refused or removed where not, and said in each case.

use std::fs;

use anyhow::{Context as _, ensure};
use tests::{
    live::Live,
    manifest::{pod, policy},
    node::{Node, PATIENCE, Setup, eventually},
    traffic::{
        Echo, OPEN,
        Protocol::{Tcp, Udp},
        Reached, SILENT, reach,
    },
    trial::trial,
};

fn shop() -> String {
    let rule =
        "  podSelector: {matchLabels: {app: db}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]";
    [pod("shop/web", "app: web"), pod("shop/db", "app: db"), policy("shop/db", rule)].concat()
}

/// What the daemon has logged.
fn log(node: &Node) -> anyhow::Result<String> {
    fs::read_to_string(node.log()).context("the daemon's log")
}

/// Runs `ip` on the node.
fn on_node(node: &Node, arguments: &[&str]) -> anyhow::Result<String> {
    node.sandbox.said("ip", arguments)
}

#[test]
fn a_pod_whose_record_is_broken_keeps_its_address_its_connections_and_its_policy() {
    trial(|| {
        let mut node = Node::start(&[("all.yaml", &shop())])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        let mut living = Vec::new();
        for (number, address) in db.addresses().into_iter().enumerate() {
            let port = 2000 + 2 * number as u16;
            living.push(Live::open(&web.sandbox, Tcp, &db.sandbox, (address, port).into())?);
            living.push(Live::open(&web.sandbox, Udp, &db.sandbox, (address, port + 1).into())?);
        }
        node.take_agent()?.kill()?;
        let records = node.state().join("endpoints");
        let texts = ["", "{\"format\": 1, \"boot", "no JSON at all"];
        for (pod, text) in [&web, &db, &other].into_iter().zip(texts) {
            let record = records.join(format!("{}:eth0.json", pod.container_id));
            ensure!(record.exists(), "{}", record.display());
            fs::write(&record, text)?;
        }
        node.start_daemon()?;
        for live in living {
            live.finish()?.lossless()?;
        }
        let said = log(&node)?;
        ensure!(said.matches("Endpoint taken over from its link").count() == 3, "{said}");
        for pod in [&web, &db, &other] {
            pod.call("CHECK")?.result().with_context(|| format!("CHECK of {}", pod.key))?;
        }
        for to in db.at(80) {
            ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes);
            ensure!(reach(&other.sandbox, Udp, to, SILENT)? == Reached::No);
        }
        let endpoints = node.ask()?.endpoints()?;
        let mut names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.pod.as_str()).collect();
        names.sort_unstable();
        ensure!(names == ["db", "other", "web"], "{names:?}");
        let paths = [&web, &db, &other].map(|pod| pod.sandbox.path().display().to_string());
        ensure!(endpoints.iter().all(|endpoint| paths.contains(&endpoint.netns)), "{endpoints:?}");
        let late = node.add("shop/late")?;
        ensure!(!late.addresses().iter().any(|it| [&web, &db, &other].iter().any(|pod| pod.addresses().contains(it))));

        // The new records are as good as the old ones: after another start, and for DEL.
        node.take_agent()?.kill()?;
        node.start_daemon()?;
        ensure!(log(&node)?.matches("Endpoint taken over from its link").count() == 3, "taken over twice");
        let (link, address) = (db.host_ifname(), db.v4);
        db.del()?;
        ensure!(!on_node(&node, &["-o", "link"])?.contains(&link), "{link} is still there");
        let routes = on_node(&node, &["route"])?;
        ensure!(!routes.contains(&format!("{address} ")), "{routes}");
        ensure!(fs::read_dir(&records)?.count() == 3);
        Ok(())
    });
}

#[test]
fn a_link_that_nobody_understands_goes_and_the_log_says_why() {
    trial(|| {
        let mut node = Node::start(&[("all.yaml", &shop())])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        node.take_agent()?.kill()?;
        fs::remove_dir_all(node.state().join("endpoints"))?;
        // Of one the alias is lost, of the other the way to one of its addresses.
        on_node(&node, &["link", "set", &web.host_ifname(), "alias", "uplink"])?;
        on_node(&node, &["route", "del", &db.v4.to_string()])?;
        on_node(&node, &["link", "add", "bh0123456789a", "type", "veth", "peer", "name", "far"])?;
        node.start_daemon()?;
        let links = on_node(&node, &["-o", "link"])?;
        for gone in [web.host_ifname(), db.host_ifname(), "bh0123456789a".to_owned()] {
            ensure!(!links.contains(&gone), "{gone}: {links}");
        }
        let said = log(&node)?;
        for reason in ["alias \"uplink\" names no attachment", "its routes lead to {", "alias \"\" names no attachment"]
        {
            ensure!(said.contains(reason) || said.contains(&reason.replace('"', "\\\"")), "no {reason:?} in {said}");
        }
        ensure!(node.ask()?.endpoints()?.is_empty());
        // Its addresses are free again.
        web.call("ADD")?.result()?;
        Ok(())
    });
}

#[test]
fn a_pool_that_holds_an_address_of_the_node_is_refused() {
    trial(|| {
        let pools = vec!["10.77.0.0/24".to_owned(), "fd77::/64".to_owned()];
        let mut node = Node::without_daemon(Setup { pools, ..Setup::default() }, &[])?;
        node.sandbox.ip("addr add 10.77.0.9/24 dev spare0\n")?;
        node.spawn_daemon()?;
        let ended = node.take_agent()?.ended()?;
        ensure!(ended == Some(64), "{ended:?}");
        let said = log(&node)?;
        let expected = "bulkhead-daemon: --pool: address pool 10.77.0.0/24: the node itself has 10.77.0.9 on spare0, ";
        ensure!(said.contains(expected) && said.contains("ip address del 10.77.0.9/24 dev spare0"), "{said}");
        ensure!(!on_node(&node, &["-o", "addr", "show", "dev", "lo"])?.contains("10.77.0.1"), "it has begun");

        // Our own gateways are no reason, neither after a crash nor without the state.
        node.sandbox.ip("addr del 10.77.0.9/24 dev spare0\n")?;
        node.start_daemon()?;
        node.take_agent()?.kill()?;
        node.start_daemon()?;
        node.take_agent()?.kill()?;
        fs::remove_dir_all(node.state())?;
        node.start_daemon()
    });
}

#[test]
fn gateways_of_an_earlier_pool_go_with_the_last_pod_that_has_them() {
    trial(|| {
        let setup = Setup::default();
        let (name, pools) = (setup.name.clone(), setup.pools.clone());
        let mut node = Node::start_as(setup, &[("all.yaml", &shop())])?;
        let on_lo = |node: &Node| on_node(node, &["-o", "addr", "show", "dev", "lo"]);
        let old = |text: &str| text.contains("10.77.0.1/32") && text.contains("fd77::1/128");
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        node.take_agent()?.kill()?;
        ensure!(pools == ["10.77.0.0/24", "fd77::/64"] && node.name() == name);

        node.set_pools(&["10.78.0.0/24", "fd78::/64"]);
        node.start_daemon()?;
        let text = on_lo(&node)?;
        ensure!(old(&text) && text.contains("10.78.0.1/32") && text.contains("fd78::1/128"), "{text}");
        for to in db.at(80) {
            ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes, "{to}");
        }
        web.del()?;
        db.del()?;
        node.take_agent()?.kill()?;
        node.start_daemon()?;
        let text = on_lo(&node)?;
        ensure!(!text.contains("10.77.0.1") && !text.contains("fd77::1"), "{text}");
        ensure!(text.contains("10.78.0.1/32") && text.contains("fd78::1/128"), "{text}");
        Ok(())
    });
}

#[test]
fn a_pod_whose_link_is_gone_is_lost_until_its_sandbox_is_gone_too() {
    trial(|| {
        let arguments = vec!["--gc-interval=1".to_owned()];
        let node = Node::start_as(Setup { arguments, ..Setup::default() }, &[("all.yaml", &shop())])?;
        node.sandbox.ip("addr add 192.0.2.1/24 dev spare0\nlink set spare0 up\nlink set spare1 up\n")?;
        let uplink = || Ok::<_, anyhow::Error>(node.ask()?.status()?.datapath.context("a datapath")?.uplink);
        ensure!(uplink()?.is_empty());
        node.sandbox.ip("route add default via 192.0.2.2 dev spare0\n")?;
        ensure!(uplink()? == "spare0", "{}", uplink()?);

        let web = node.add("shop/web")?;
        let state = || Ok::<_, anyhow::Error>(node.bulkhead().json(&["endpoint", "list"])?.to_string());
        ensure!(state()?.contains("\"state\":\"ready\""), "{}", state()?);
        on_node(&node, &["link", "del", &web.host_ifname()])?;
        ensure!(state()?.contains("\"state\":\"lost\""), "{}", state()?);
        let conditions = node.ask()?.status()?.conditions;
        ensure!(
            conditions.iter().any(|it| it.code == "endpoint-lost" && it.message.contains("shop/web")),
            "{conditions:?}"
        );
        web.sandbox.vanish();
        let gone = || Ok(node.ask()?.endpoints()?.is_empty());
        ensure!(eventually(std::time::Duration::from_secs(10), gone)?, "{}", state()?);
        Ok(())
    });
}

#[test]
fn programs_that_somebody_removes_are_put_back() {
    trial(|| {
        let mut node = Node::start(&[("all.yaml", &shop())])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        let in_order = |node: &Node, round: &str| -> anyhow::Result<()> {
            let mut said = String::new();
            let whole = eventually(PATIENCE, || {
                let answer = db.call("CHECK")?.result();
                said = answer.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
                Ok(answer.is_ok())
            })?;
            ensure!(whole, "{round}: {said}\n{}", log(node)?);
            for to in db.at(80) {
                ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes, "{round}: {to}");
                ensure!(reach(&other.sandbox, Udp, to, SILENT)? == Reached::No, "{round}: {to}");
            }
            Ok(())
        };
        let remove = |node: &Node, arguments: &[&str]| -> anyhow::Result<()> {
            let _inside = node.sandbox.enter()?;
            let output = std::process::Command::new("tc").args(arguments).output().context("starting tc")?;
            ensure!(output.status.success(), "tc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        let link = db.host_ifname();
        let ways: [&[&str]; 3] = [
            &["qdisc", "del", "dev", &link, "clsact"],
            &["filter", "del", "dev", &link, "ingress"],
            &["filter", "del", "dev", &link, "egress", "prio", "1"],
        ];
        for (number, way) in ways.into_iter().enumerate() {
            remove(&node, way)?;
            let put_back = || Ok(log(&node)?.matches("put back").count() > number);
            ensure!(eventually(PATIENCE, put_back)?, "{way:?}: {}", log(&node)?);
            in_order(&node, &format!("{way:?}"))?;
        }
        let told = || {
            let conditions = node.ask()?.status()?.conditions;
            Ok(conditions.iter().any(|it| it.code == "programs-put-back" && it.message.contains("3 times")))
        };
        ensure!(eventually(PATIENCE, told)?, "{:?}", node.ask()?.status()?.conditions);
        // Nobody hears of it, but whoever starts looks.
        node.take_agent()?.kill()?;
        for way in ways.iter().skip(1) {
            remove(&node, way)?;
        }
        node.start_daemon()?;
        in_order(&node, "while the daemon was away")?;
        // A link that comes or goes is none of these.
        db.del()?;
        ensure!(log(&node)?.matches("put back").count() == 3, "{}", log(&node)?);
        Ok(())
    });
}
