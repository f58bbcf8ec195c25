//! What kernels say by themselves when an interface comes up: multicast listener reports, neighbour
//! discovery, router solicitations. None of it is traffic that a policy is about, so none of it may
//! look like a denial to somebody who reads flows or counters.

use std::{thread, time::Duration};

use anyhow::ensure;
use proto::bulkhead::admin::v1::{self as admin, admin_client::AdminClient};
use tests::{
    manifest::policy,
    node::Node,
    traffic::{Protocol::Udp, Reached, SILENT, reach},
    trial::trial,
};

/// Longer than the kernel waits before its last report: MLDv2 says all twice, each time after up to a
/// second (RFC 3810, sections 6.1 and 9.14).
const TALK: Duration = Duration::from_millis(3500);

fn counters(node: &Node) -> anyhow::Result<Vec<admin::Counter>> {
    let ask = node.ask()?;
    let mut client = AdminClient::new(ask.channel());
    Ok(ask.wait(async move { client.counters(admin::CountersRequest {}).await })?.into_inner().counters)
}

#[test]
fn a_pod_that_starts_under_default_deny_leaves_no_denial_behind() {
    trial(|| {
        let rule = "  podSelector: {}\n  policyTypes: [Ingress, Egress]";
        let node = Node::start(&[("all.yaml", &policy("shop/deny", rule))])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        // A namespace that is used again: its interface goes down and up.
        web.sandbox.ip("link set eth0 down\nlink set eth0 up\n")?;
        thread::sleep(TALK);
        let seen = counters(&node)?;
        let passed: u64 = seen.iter().filter(|it| it.reason == 0).map(|it| it.packets).sum();
        let dropped: Vec<_> = seen.iter().filter(|it| it.reason != 0).collect();
        ensure!(dropped.is_empty(), "{dropped:?}");
        ensure!(passed > 0, "nobody has said anything");
        let flows = node.bulkhead().flows(&["--verdict", "denied"])?;
        ensure!(flows.is_empty(), "{flows:?}");

        // What is traffic is denied, counted and told.
        ensure!(reach(&db.sandbox, Udp, web.at(80)[1], SILENT).map_or(true, |reached| reached == Reached::No));
        ensure!(counters(&node)?.iter().any(|it| it.reason_name == "default_deny"));
        node.bulkhead().flows_when(&["--verdict", "denied"], |found| !found.is_empty())?;
        Ok(())
    });
}
