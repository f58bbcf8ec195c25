//! Clusters of other kinds than that of all the other tests: each is made, and asked what matters most.

use serde_json::json;
use tests::cluster::{Plan, Proxy, Routing, layout::Families};

use crate::{
    life::{self, SILENCE, YES, admits, labels},
    services,
    stage::{Ask, Stage},
};

/// Nobody but us makes Services work, so the agent is told where the API server is.
pub(crate) fn without_kube_proxy(stage: &mut Stage) -> anyhow::Result<()> {
    works(stage, Plan { proxy: Proxy::None, routing: Routing::Native, ..Plan::default() })
}

pub(crate) fn of_ipv4_alone(stage: &mut Stage) -> anyhow::Result<()> {
    works(stage, Plan { families: Families::Ipv4, proxy: Proxy::Iptables, ..Plan::default() })
}

/// Pods' packets are carried over IPv6, too.
pub(crate) fn of_ipv6_alone(stage: &mut Stage) -> anyhow::Result<()> {
    works(stage, Plan { families: Families::Ipv6, ..Plan::default() })
}

/// Pods reach each other and a Service, by its name as well, on both nodes; a policy holds.
fn works(stage: &mut Stage, plan: Plan) -> anyhow::Result<()> {
    *stage = Stage::of(plan)?;
    stage.namespaces(&["kinds"])?;
    let pods = stage.pods(&[
        ("kinds/near", labels("web"), "n1"),
        ("kinds/far", labels("web"), "n2"),
        ("kinds/client", labels("client"), "n1"),
        ("kinds/other", labels("other"), "n2"),
    ])?;
    let policy = if plan.families == Families::DualStack { "RequireDualStack" } else { "SingleStack" };
    stage.apply(&[services::service("kinds", "web", json!({"ipFamilyPolicy": policy}))])?;
    let asks = |stage: &Stage, from: &str, answer| -> anyhow::Result<Vec<Ask>> {
        let mut asks = services::about(stage, from, "kinds/web", answer)?;
        for to in ["kinds/near", "kinds/far"] {
            asks.extend(life::about(from, &pods[to], answer));
        }
        Ok(asks)
    };
    let both = |stage: &Stage, other| -> anyhow::Result<Vec<Ask>> {
        Ok([asks(stage, "kinds/client", YES)?, asks(stage, "kinds/other", other)?].concat())
    };
    stage.expect(&both(stage, YES)?)?;
    services::found_by_name(stage, "kinds/client", "kinds/web")?;
    stage.apply(&[admits("kinds", "web", Some("client"))])?;
    stage.expect(&both(stage, SILENCE)?)
}
