use proto::bulkhead::flow::v1::Rule;

use super::*;

fn net(namespace: &str, name: &str) -> Policy {
    Policy { kind: "NetworkPolicy".into(), namespace: namespace.into(), name: name.into(), uid: String::new() }
}

fn by_rule(outcome: Outcome, policy: Policy, index: u32) -> Option<Ruling> {
    let rule = Some(Rule { policy: Some(policy), index, cookie: 9 });
    Some(Ruling { outcome: outcome as i32, rule, isolated_by: Vec::new() })
}

fn isolated(by: Vec<Policy>) -> Option<Ruling> {
    Some(Ruling { outcome: Outcome::Isolated as i32, rule: None, isolated_by: by })
}

fn open() -> Option<Ruling> {
    Some(Ruling { outcome: Outcome::Open as i32, ..Ruling::default() })
}

fn phrase(egress: Option<Ruling>, ingress: Option<Ruling>, drop: &str, text: &str) -> String {
    let extension = FlowExtension {
        egress,
        ingress,
        drop_reason: drop.to_owned(),
        drop_text: text.to_owned(),
        ..FlowExtension::default()
    };
    of(&extension, Some(DropReason::PolicyDenied))
}

#[test]
fn what_is_allowed_names_the_rules_of_both_ends() {
    let web = || by_rule(Outcome::RuleAllows, net("shop", "web-egress"), 1);
    let db = || by_rule(Outcome::RuleAllows, net("shop", "db-ingress"), 0);
    assert_eq!(phrase(web(), db(), "", ""), "by shop/web-egress egress[1] and shop/db-ingress ingress[0]");
    assert_eq!(phrase(open(), db(), "", ""), "by shop/db-ingress ingress[0]");
    assert_eq!(phrase(web(), None, "", ""), "by shop/web-egress egress[1]");
    assert_eq!(phrase(open(), open(), "", ""), "no policy isolates either end");
    let exempt = Some(Ruling { outcome: Outcome::Exempt as i32, ..Ruling::default() });
    assert_eq!(phrase(None, exempt, "", ""), "the pod's own node always may");
}

#[test]
fn what_is_denied_names_who_isolates_or_denies() {
    let by = vec![net("shop", "db-ingress"), net("shop", "deny-all")];
    assert_eq!(
        phrase(open(), isolated(by), "default_deny", "isolated by policy and no rule allows it"),
        "ingress isolated by shop/db-ingress and shop/deny-all; nothing allowed it"
    );
    let by = ["a", "b", "c"].map(|name| net("shop", name)).to_vec();
    assert_eq!(
        phrase(open(), isolated(by), "default_deny", ""),
        "ingress isolated by shop/a, shop/b and shop/c; nothing allowed it"
    );
    let tier = Policy { kind: "ClusterNetworkPolicy".into(), name: "guard".into(), ..Policy::default() };
    assert_eq!(
        phrase(by_rule(Outcome::RuleDenies, tier, 3), None, "deny_rule", "denied by a rule"),
        "denied by ClusterNetworkPolicy guard egress[3]"
    );
}

#[test]
fn what_staged_policies_would_do_is_told_apart() {
    let guard = Policy { kind: "ClusterNetworkPolicy".into(), name: "guard".into(), ..Policy::default() };
    let told = |staged_egress, staged_ingress| {
        let egress = by_rule(Outcome::RuleAllows, net("shop", "web-egress"), 1);
        staged(&FlowExtension { egress, ingress: open(), staged_egress, staged_ingress, ..FlowExtension::default() })
    };
    assert_eq!(told(None, None), None);
    let denies = by_rule(Outcome::RuleDenies, guard, 3);
    assert_eq!(told(None, denies).unwrap(), "denied by ClusterNetworkPolicy guard ingress[3]");
    let isolates = isolated(vec![net("shop", "db")]);
    assert_eq!(told(None, isolates).unwrap(), "denied, ingress isolated by shop/db; nothing allowed it");
    // What is not staged counts as it is.
    assert_eq!(told(None, open()).unwrap(), "allowed by shop/web-egress egress[1]");
    assert_eq!(told(open(), None).unwrap(), "allowed, no policy isolates either end");
}

#[test]
fn other_reasons_are_told_in_their_own_words() {
    let text = "source address does not belong to the sender";
    assert_eq!(phrase(None, None, "invalid_source_ip", text), text);
    let change = "a policy or label change forbids the connection";
    assert_eq!(
        phrase(isolated(vec![net("a", "b")]), None, "policy_change", change),
        format!("{change}; egress isolated by a/b; nothing allowed it")
    );
    assert_eq!(phrase(None, None, "default_deny", ""), "policy denied");
}

#[test]
fn a_rule_of_a_policy_that_is_gone_keeps_its_number() {
    let rule = Some(Rule { policy: None, index: 0, cookie: 77 });
    let ruling = Some(Ruling { outcome: Outcome::RuleAllows as i32, rule, isolated_by: Vec::new() });
    assert_eq!(phrase(ruling, None, "", ""), "by egress rule 77 of a policy that is gone");
}

#[test]
fn without_our_extension_the_policies_are_named() {
    let policy = PlainPolicy {
        kind: "NetworkPolicy".into(),
        namespace: "shop".into(),
        name: "db".into(),
        ..PlainPolicy::default()
    };
    let allowed = Flow { ingress_allowed_by: vec![policy.clone()], ..Flow::default() };
    assert_eq!(without_extension(&allowed), "by shop/db");
    let reason = DropReason::PolicyDenied as i32;
    let denied = Flow { ingress_denied_by: vec![policy], drop_reason_desc: reason, ..Flow::default() };
    assert_eq!(without_extension(&denied), "policy denied by shop/db");
    assert_eq!(without_extension(&Flow::default()), "");
}
