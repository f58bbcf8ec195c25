//! Which workload a pod belongs to: the Deployment behind a ReplicaSet, a StatefulSet, the CronJob behind a Job.

use k8s_openapi::api::core::v1::Pod;
use policy::model::Workload;

/// Label by which a Deployment tells its ReplicaSets apart; its value ends their names.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// How long after the time that a Job was scheduled for its pods may come: those that are tried again come late.
const LATE_S: i64 = 7 * 86_400;
/// How much earlier by another clock.
const EARLY_S: i64 = 3600;

/// The workload of a pod, from the owner that controls it; `None` if the pod stands for itself.
/// Of a ReplicaSet that a Deployment made, the Deployment; of a Job that a CronJob made, the CronJob: both are told by
/// their names, so that nobody has to watch Jobs and ReplicaSets.
pub fn workload(pod: &Pod) -> Option<Workload> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    let owner_itself = || Workload { kind: owner.kind.clone(), name: owner.name.clone() };
    match owner.kind.as_str() {
        // The mirror of a static pod is owned by its node.
        "Node" | "" => None,
        "ReplicaSet" => {
            let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_TEMPLATE_HASH));
            let hash = hash.filter(|hash| !hash.is_empty());
            let stem = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
            match stem.filter(|name| !name.is_empty()) {
                Some(name) => Some(Workload { kind: "Deployment".to_owned(), name: name.to_owned() }),
                None => Some(owner_itself()),
            }
        }
        "Job" => match cron_job(&owner.name, pod) {
            Some(name) => Some(Workload { kind: "CronJob".to_owned(), name: name.to_owned() }),
            None => Some(owner_itself()),
        },
        _ => Some(owner_itself()),
    }
}

/// The CronJob that has made the Job of a pod. Its Jobs are called after it and the minute that they are scheduled for, counted
/// from 1970 (kubernetes/kubernetes, pkg/controller/cronjob/utils.go, `getJobName`); it is one only if the pod came about then.
fn cron_job<'a>(job: &'a str, pod: &Pod) -> Option<&'a str> {
    let (name, minute) = job.rsplit_once('-').filter(|(name, _)| !name.is_empty())?;
    if !minute.bytes().all(|byte| byte.is_ascii_digit()) || minute.starts_with('0') {
        return None;
    }
    let scheduled = minute.parse::<i64>().ok()?.checked_mul(60)?;
    let created = pod.metadata.creation_timestamp.as_ref()?.0.as_second();
    (-EARLY_S..LATE_S).contains(&created.checked_sub(scheduled)?).then_some(name)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn of(owner: Option<(&str, &str)>, hash: Option<&str>) -> String {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web-7d4b9-x2x".to_owned());
        pod.metadata.labels = hash.map(|hash| [(POD_TEMPLATE_HASH.to_owned(), hash.to_owned())].into());
        pod.metadata.owner_references = owner.map(|(kind, name)| {
            let other = OwnerReference { kind: "Thing".to_owned(), name: "t".to_owned(), ..OwnerReference::default() };
            let owner = OwnerReference {
                kind: kind.to_owned(),
                name: name.to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            };
            vec![other, owner]
        });
        workload(&pod).map_or("itself".to_owned(), |workload| workload.to_string())
    }

    #[test]
    fn the_controlling_owner_is_the_workload() {
        assert_eq!(of(None, None), "itself");
        assert_eq!(of(Some(("ReplicaSet", "web-7d4b9")), Some("7d4b9")), "Deployment web");
        assert_eq!(of(Some(("ReplicaSet", "web")), None), "ReplicaSet web");
        assert_eq!(of(Some(("ReplicaSet", "web-1")), Some("7d4b9")), "ReplicaSet web-1");
        assert_eq!(of(Some(("ReplicaSet", "-7d4b9")), Some("7d4b9")), "ReplicaSet -7d4b9");
        assert_eq!(of(Some(("ReplicaSet", "web-")), Some("")), "ReplicaSet web-");
        assert_eq!(of(Some(("StatefulSet", "db")), None), "StatefulSet db");
        assert_eq!(of(Some(("Job", "backup-28")), None), "Job backup-28");
        assert_eq!(of(Some(("Node", "node-1")), None), "itself");
    }

    #[test]
    fn a_job_that_is_called_after_its_minute_is_a_cron_jobs() {
        let of = |job: &str, created: &str| {
            let created = serde_json::from_value(serde_json::json!(created)).unwrap();
            let owner = OwnerReference {
                kind: "Job".to_owned(),
                name: job.to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            };
            let mut pod = Pod::default();
            pod.metadata.creation_timestamp = Some(created);
            pod.metadata.owner_references = Some(vec![owner]);
            workload(&pod).unwrap().to_string()
        };
        let minute = "2026-01-01T11:45:00Z";
        assert_eq!(of("backup-29454465", "2026-01-01T11:45:09Z"), "CronJob backup");
        assert_eq!(of("back-up-29454465", "2026-01-03T00:00:00Z"), "CronJob back-up");
        assert_eq!(of("backup-29454465", "2026-02-01T00:00:00Z"), "Job backup-29454465");
        assert_eq!(of("backup-29454465", "2025-12-31T00:00:00Z"), "Job backup-29454465");
        for job in
            ["backup-28", "backup", "-29454465", "backup-029454465", "backup-2945446x", "backup-99999999999999999999"]
        {
            assert_eq!(of(job, minute), format!("Job {job}"));
        }
    }
}
