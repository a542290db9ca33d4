use std::path::Path;

use super::{
    detect::{Controller, Hierarchy},
    *,
};

fn hierarchy(own: &str, mount: &str, controllers: &[Controller], read_only: bool) -> Hierarchy {
    Hierarchy { own: own.into(), mount: mount.into(), controllers: controllers.to_vec(), read_only }
}

#[test]
fn a_unified_machine() {
    let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
                  31 23 0:27 / /proc rw - proc proc rw\n";
    let plan = CgroupPlan::parse(mounts, "0::/user.slice/user-1000.slice/run.scope\n");
    let own = "/sys/fs/cgroup/user.slice/user-1000.slice/run.scope";
    assert_eq!(plan.v2, Some(hierarchy(own, "/sys/fs/cgroup", &[], false)));
    assert!(plan.v1.is_empty());
}

#[test]
fn a_hybrid_machine_with_shared_and_named_hierarchies() {
    let mounts = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    let own = "5:name=systemd:/x\n4:memory:/a/b\n2:cpu,cpuacct:/\n3:devices:/\n0::/\n";
    let plan = CgroupPlan::parse(mounts, own);
    assert_eq!(
        plan.v1,
        [
            hierarchy(
                "/sys/fs/cgroup/cpu,cpuacct",
                "/sys/fs/cgroup/cpu,cpuacct",
                &[Controller::Cpu, Controller::Cpuacct],
                false
            ),
            hierarchy("/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory", &[Controller::Memory], false),
        ]
    );
    assert_eq!(plan.v2.unwrap().own, Path::new("/sys/fs/cgroup/unified"));
}

#[test]
fn a_container_sees_its_own_part_read_only() {
    // Without a cgroup namespace: the mount's root is the container's cgroup.
    let mounts = "50 49 0:30 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n";
    let plan = CgroupPlan::parse(mounts, "9:memory:/docker/abc/inner\n");
    let memory = [Controller::Memory];
    assert_eq!(plan.v1, [hierarchy("/sys/fs/cgroup/memory/inner", "/sys/fs/cgroup/memory", &memory, true)]);
    let (cgroup, status) =
        plan.create(&SandboxId::from_random([0; 8]), &Limits { memory: Some(1 << 30), ..Limits::default() });
    assert!(cgroup.is_none());
    let Enforcement::Absent(why) = &status[0].enforcement else { panic!("{status:?}") };
    assert!(why.contains("read-only"), "{why}");
}

#[test]
fn a_path_outside_the_namespace_is_no_place() {
    let mounts = "50 49 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
    assert_eq!(CgroupPlan::parse(mounts, "0::/../other\n").v2, None);
}

#[test]
fn blanks_in_paths_are_decoded() {
    let mounts = "50 49 0:30 / /mnt/my\\040groups rw - cgroup2 cgroup rw\n";
    assert_eq!(CgroupPlan::parse(mounts, "0::/\n").v2.unwrap().own, Path::new("/mnt/my groups"));
}

#[test]
fn no_cgroups_at_all() {
    let plan = CgroupPlan::parse("", "");
    let limits = Limits { memory: Some(1), cpus: Some(1.0), ..Limits::default() };
    let (cgroup, status) = plan.create(&SandboxId::from_random([1; 8]), &limits);
    assert!(cgroup.is_none());
    assert_eq!(status.len(), 3, "two that were named, and our bound on processes");
    assert!(status.iter().all(|s| matches!(&s.enforcement, Enforcement::Absent(why) if why.contains("no cgroup"))));
}

#[test]
fn a_named_limit_that_cannot_hold_stops_the_start_unless_best_effort() {
    let status = |named| LimitStatus { limit: Limit::Memory, named, enforcement: Enforcement::Absent("why".into()) };
    let established = |named, best_effort| Established {
        cgroup: None,
        rlimits: Rlimits::default(),
        status: vec![status(named)],
        best_effort,
    };
    let unmet = established(true, false).unmet().unwrap();
    assert!(unmet.contains("the limit of memory") && unmet.contains("best_effort"), "{unmet}");
    assert_eq!(established(true, true).unmet(), None);
    assert_eq!(established(false, false).unmet(), None, "nobody asked for our default");
    assert!(matches!(established(true, true).enforcement(), Enforcement::Absent(_)), "and yet it is reported");
}
