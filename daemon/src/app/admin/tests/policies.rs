//! `ListPolicies` and `GetPolicy`.

use policy::model::PolicyRef;
use proto::bulkhead::admin::v1::PolicyStatus;

use super::*;

async fn list(node: &Node, namespace: &str) -> Vec<pb::Policy> {
    let request = pb::ListPoliciesRequest { namespace: namespace.to_owned() };
    node.service().list_policies(Request::new(request)).await.unwrap().into_inner().policies
}

async fn get(node: &Node, name: &str) -> pb::GetPolicyResponse {
    ask(node, "shop", name, "").await.unwrap().into_inner()
}

async fn ask(node: &Node, namespace: &str, name: &str, kind: &str) -> Result<Response<pb::GetPolicyResponse>, Status> {
    let (namespace, name, kind) = (namespace.to_owned(), name.to_owned(), kind.to_owned());
    node.service().get_policy(Request::new(pb::GetPolicyRequest { namespace, name, kind })).await
}

/// One line for a policy, without reason and origin.
fn line(policy: &pb::Policy) -> String {
    let status = PolicyStatus::try_from(policy.status).unwrap().as_str_name();
    let directions: Vec<&str> =
        policy.directions.iter().map(|it| pb::Direction::try_from(*it).unwrap().as_str_name()).collect();
    format!(
        "{} {}/{} {} {}+{} entries {} {status} warnings {}",
        path(policy.policy.as_ref()),
        policy.selected_endpoints,
        policy.selected_pods,
        directions.join(","),
        policy.egress_rules,
        policy.ingress_rules,
        policy.entries,
        policy.warnings
    )
}

#[tokio::test]
async fn a_list_tells_whom_each_selects_and_what_it_costs() {
    let node = shop();
    node.apply("policy dev/all {}\n  ingress none\n  egress none");
    node.plan();
    let lines: Vec<String> = list(&node, "").await.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            // No entry at all: isolation alone.
            "NetworkPolicy dev/all 1/1 DIRECTION_EGRESS,DIRECTION_INGRESS 0+0 entries 0 POLICY_STATUS_ACCEPTED \
             warnings 0",
            // One peer with two ports, a region and the hole in it.
            "NetworkPolicy shop/db-clients 1/1 DIRECTION_INGRESS 0+2 entries 5 POLICY_STATUS_ACCEPTED warnings 0",
            // The database with its port, and every pod.
            "NetworkPolicy shop/web-out 1/2 DIRECTION_EGRESS 2+0 entries 3 POLICY_STATUS_ACCEPTED warnings 0",
        ]
    );
    let of_dev: Vec<String> = list(&node, "dev").await.iter().map(|it| path(it.policy.as_ref())).collect();
    assert_eq!(of_dev, ["NetworkPolicy dev/all"]);
    assert!(list(&node, "nowhere").await.is_empty());
}

#[tokio::test]
async fn a_policy_is_told_in_words() {
    let node = shop();
    node.apply(
        "policy shop/mixed {app in (db,web), !old}
           ingress from {} or {x=1} in {team=a} or {} in {team=a, env} or {a=1} in {}
           ingress
           egress to {app=web} ports TCP/*, SCTP/1, TCP/pg",
    );
    node.plan();
    let answer = get(&node, "mixed").await;
    assert_eq!(answer.selects, "pods of shop with app in (db,web), !old");
    let selected: Vec<&str> = answer.selected.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(selected, ["db-0", "web-0"]);
    let rules: Vec<String> = answer
        .rules
        .iter()
        .map(|it| {
            let peers = it.peers.join(" | ");
            format!("{}: {peers} on {} for {}", rule(it.rule.as_ref()), it.ports.join(" | "), it.matching_pods)
        })
        .collect();
    assert_eq!(
        rules,
        [
            "shop/mixed egress[0]: pods with app=web on every tcp port | sctp 1 | tcp named pg for 2",
            "shop/mixed ingress[0]: all pods | pods with x=1 in namespaces with team=a | all pods in namespaces with \
             env, team=a | pods with a=1 in every namespace on  for 3",
            "shop/mixed ingress[1]:  on  for 4",
        ]
    );
    let db = get(&node, "db-clients").await;
    let words: Vec<String> = db.rules.iter().map(|it| format!("{:?} {:?}", it.peers, it.ports)).collect();
    assert_eq!(
        words,
        [r#"["pods with app=web"] ["tcp named pg", "udp 60-63"]"#, r#"["192.0.2.0/24 without 192.0.2.7/32"] []"#]
    );
}

#[tokio::test]
async fn what_is_probably_not_meant_is_named_by_field() {
    let node = shop();
    node.apply(
        "policy shop/odd {app=db}
           ingress from {app=web} or {app=gone} ports TCP/pg, UDP/pg, TCP/metrics
           egress to {app=cache} ports TCP/pg
           egress to {app=web} ports TCP/pg
           egress to 192.0.2.0/24 ports TCP/http
         policy shop/nobody {app=gone}
           ingress from {} ports TCP/pg",
    );
    node.plan();
    let warnings = |answer: pb::GetPolicyResponse| -> Vec<String> {
        assert_eq!(answer.policy.unwrap().warnings as usize, answer.warnings.len());
        answer.warnings.into_iter().map(|it| format!("{} {}: {}", it.field, it.code, it.message)).collect()
    };
    assert_eq!(
        warnings(get(&node, "odd").await),
        [
            "spec.egress[0].to[0] peer-matches-nothing: no pod matches: there are no pods with app=cache",
            "spec.egress[1].ports[0].port named-port-unknown: no pod that the rule matches has a TCP port named pg, so \
             the port stands for nothing",
            "spec.egress[2].ports[0].port named-port-unknown: no pod that the rule matches has a TCP port named http, \
             so the port stands for nothing",
            "spec.ingress[0].from[1] peer-matches-nothing: no pod matches: there are no pods with app=gone",
            "spec.ingress[0].ports[1].port named-port-unknown: no pod that it selects has a UDP port named pg, so the \
             port stands for nothing",
            "spec.ingress[0].ports[2].port named-port-unknown: no pod that it selects has a TCP port named metrics, so \
             the port stands for nothing",
        ]
    );
    assert_eq!(
        warnings(get(&node, "nobody").await),
        ["spec.podSelector selects-nothing: it selects no pod: there are none like pods of shop with app=gone"]
    );
}

/// A manifest of a policy `shop/NAME`; with `cidr` in its only rule.
fn manifest(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         podSelector: {{}}\n  ingress:\n  - from:\n    - ipBlock: {{cidr: {cidr}}}\n"
    )
}

#[tokio::test]
async fn a_policy_with_an_error_keeps_its_last_good_version() {
    let node = shop();
    let (good, bad) = (manifest("web-out", "10.0.0.0/8"), manifest("web-out", "10.0.0.0/33"));
    let never = manifest("never", "nonsense");
    node.files(&[("a.yaml", &good), ("a.yaml", &bad), ("b.yaml", &never)]);
    let policies = list(&node, "shop").await;
    let told: Vec<(String, &str)> = policies
        .iter()
        .map(|it| (path(it.policy.as_ref()), PolicyStatus::try_from(it.status).unwrap().as_str_name()))
        .collect();
    assert_eq!(
        told,
        [
            ("NetworkPolicy shop/db-clients".to_owned(), "POLICY_STATUS_ACCEPTED"),
            ("NetworkPolicy shop/never".to_owned(), "POLICY_STATUS_REFUSED"),
            ("NetworkPolicy shop/web-out".to_owned(), "POLICY_STATUS_LAST_GOOD"),
        ]
    );
    let (never, last_good) = (&policies[1], &policies[2]);
    assert!(last_good.reason.starts_with("a.yaml:8: spec.ingress[0].from[0].ipBlock.cidr: "), "{}", last_good.reason);
    let at = |file: &str| Some(pb::Origin { file: file.to_owned(), document: 1, line: 1 });
    assert_eq!((&last_good.origin, &never.origin), (&at("a.yaml"), &at("b.yaml")));
    assert_eq!((never.selected_pods, never.directions.len(), last_good.egress_rules), (0, 0, 2));
    let detail = get(&node, "never").await;
    assert!(detail.rules.is_empty() && detail.policy.unwrap().status == PolicyStatus::Refused as i32);
}

#[tokio::test]
async fn a_file_that_says_nothing_any_more_keeps_all_of_its_policies() {
    let node = shop();
    let both = format!("{}---\n{}", manifest("web-out", "10.0.0.0/8"), manifest("db-clients", "10.0.0.0/8"));
    node.files(&[("a.yaml", &both), ("a.yaml", "kind: [")]);
    let statuses: Vec<i32> = list(&node, "").await.iter().map(|it| it.status).collect();
    assert_eq!(statuses, [PolicyStatus::LastGood as i32; 2]);
    // An error that names nothing, beside a document that is good: nobody knows whose it is.
    let half = format!("{}---\nkind: [", manifest("web-out", "10.0.0.0/9"));
    node.files(&[("a.yaml", &both), ("a.yaml", &half)]);
    let statuses: Vec<i32> = list(&node, "").await.iter().map(|it| it.status).collect();
    assert_eq!(statuses, [PolicyStatus::Accepted as i32; 2]);
}

#[tokio::test]
async fn a_policy_that_is_defined_twice_says_so() {
    let node = shop();
    let text = manifest("web-out", "10.0.0.0/8");
    node.files(&[("a.yaml", &text), ("b.yaml", &text)]);
    let answer = get(&node, "web-out").await;
    let policy = answer.policy.unwrap();
    assert_eq!((policy.status, policy.origin.unwrap().file.as_str()), (PolicyStatus::Accepted as i32, "a.yaml"));
    let warning = &answer.warnings[0];
    assert_eq!((warning.code.as_str(), warning.field.as_str()), ("defined-twice", "metadata.name"));
    assert!(warning.message.contains("b.yaml, document 1"), "{}", warning.message);
}

#[tokio::test]
async fn a_policy_that_does_not_fit_is_refused() {
    let node = Node::new(Capacity { regions: 2, ..Capacity::default() }, SHOP);
    node.apply("policy shop/wide {app=db}\n  ingress from 192.0.2.0/24 or 198.51.100.0/24 or 203.0.113.0/24");
    node.plan();
    let policies = list(&node, "shop").await;
    let refused: Vec<(String, bool)> =
        policies.iter().map(|it| (path(it.policy.as_ref()), it.status == PolicyStatus::Refused as i32)).collect();
    let of = |name: &str, refused| (format!("NetworkPolicy shop/{name}"), refused);
    // Rules are refused together: those of both policies that isolate the pod.
    assert_eq!(refused, [of("db-clients", true), of("web-out", false), of("wide", true)]);
    let reason = &policies[2].reason;
    assert!(reason.starts_with("ingress of shop/db-0: ") && reason.contains("address prefixes"), "{reason}");
    assert!(reason.ends_with("; meanwhile its last complete rules stay in force"), "{reason}");
    // What is in force is the set from before.
    assert_eq!((policies[0].entries, policies[2].entries), (5, 0));
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let node = shop();
    let error = refused(ask(&node, "shop", "nothing", "NetworkPolicy").await);
    assert_eq!(error, "NotFound: there is no NetworkPolicy shop/nothing: `bulkhead policy list` shows those there are");
    let error = refused(ask(&node, "shop", "web-out", "Pod\u{7}").await);
    assert_eq!(
        error,
        "InvalidArgument: kind \"Pod\\u{7}\" is no kind of policy: use NetworkPolicy or ClusterNetworkPolicy"
    );
    node.delete(&ObjectKey::Policy(PolicyRef::network_policy("shop", "web-out")));
    node.plan();
    assert!(refused(ask(&node, "shop", "web-out", "").await).starts_with("NotFound: "));
}

#[tokio::test]
async fn cluster_policies_and_staged_ones_are_told_like_the_others() {
    let node = shop();
    node.apply(
        "cluster guard admin 7 {app=db} in {}
           ingress pass from {app=web} in {}
           ingress deny from {app=nobody} in {} ports TCP/nope, UDP/nope, SCTP/nope
           egress accept to domains example.com
           egress deny to domains example.org
           egress deny to nodes {role=edge}
         cluster try baseline 9 {app=none} in {} staged
           ingress accept from {} in {}",
    );
    node.plan();
    let told = list(&node, "").await;
    let cluster: Vec<&pb::Policy> =
        told.iter().filter(|it| path(it.policy.as_ref()).starts_with("ClusterNetworkPolicy")).collect();
    let standing: Vec<_> = cluster.iter().map(|it| (it.tier.as_str(), it.priority, it.status())).collect();
    assert_eq!(standing, [("Admin", 7, PolicyStatus::Accepted), ("Baseline", 9, PolicyStatus::Staged)]);
    assert_eq!((cluster[0].selected_pods, cluster[0].ingress_rules, cluster[0].egress_rules), (1, 2, 3));
    assert!(cluster[0].entries > 0, "{:?}", cluster[0]);
    let answer = ask(&node, "", "guard", "ClusterNetworkPolicy").await.unwrap().into_inner();
    assert_eq!(answer.selects, "pods with app=db in every namespace");
    let says: Vec<pb::Verdict> = answer.rules.iter().map(|rule| rule.verdict()).collect();
    use pb::Verdict::{Allow, Deny, Pass};
    assert_eq!(says, [Allow, Deny, Deny, Pass, Deny]);
    let warnings: Vec<String> = answer.warnings.iter().map(|it| format!("{} {}", it.code, it.field)).collect();
    assert_eq!(
        warnings,
        [
            "domain-names-not-yet spec.egress[0].to[0]",
            "domain-names-not-yet spec.egress[1].to[0]",
            "peer-matches-nothing spec.egress[2].to[0]",
            "peer-matches-nothing spec.ingress[1].from[0]",
            "named-port-unknown spec.ingress[1].protocols",
        ]
    );
    let staged = ask(&node, "", "try", "ClusterNetworkPolicy").await.unwrap().into_inner();
    assert_eq!(staged.warnings[0].code, "selects-nothing");
    assert_eq!(staged.warnings[0].field, "spec.subject");
    let error = ask(&node, "shop", "guard", "ClusterNetworkPolicy").await.unwrap_err();
    assert!(error.message().contains("has no namespace"), "{error}");
}

/// For each of them what the maps hold less of when it is gone: the only one that the pods it selects have.
#[tokio::test]
async fn a_policy_costs_what_the_maps_hold_because_of_it() {
    let policies = [
        "policy shop/plain {app=db}\n ingress from {app=web} or 192.0.2.0/24 except 192.0.2.7/32 ports TCP/1-1000, UDP/53",
        "policy shop/everybody {app=db}\n ingress from {} in {} ports TCP/80\n egress to anyone",
        "policy shop/closed {app=db}\n ingress none",
        "policy shop/try {app=db} staged\n ingress from {app=web} ports TCP/5432\n ingress from 192.0.2.0/24",
        "cluster guard admin 7 {app=db} in {}\n ingress pass from {app=web} in {}\n ingress deny from {} in {} ports TCP/22",
        "cluster floor baseline 7 {app=db} in {}\n egress deny to 192.0.2.0/24\n egress pass to {app=web} in {}",
        "cluster try baseline 9 {app=db} in {} staged\n ingress accept from {app=web} in {}\n egress deny to 10.0.0.0/8",
    ];
    for text in policies {
        let node = Node::new(Capacity::default(), SHOP);
        for policy in list(&node, "").await {
            let name = policy.policy.unwrap();
            node.delete(&ObjectKey::Policy(PolicyRef::network_policy(&name.namespace, &name.name)));
        }
        node.plan();
        node.collect();
        assert_eq!(node.entries(), 0, "nothing else is there");
        node.apply(text);
        node.plan();
        let told = list(&node, "").await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].entries, node.entries(), "{text}");
        assert_eq!(told[0].entries > 0, !text.contains("none"), "{text}");
    }
}
