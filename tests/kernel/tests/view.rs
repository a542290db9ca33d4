//! The mount view, for real: root and rootless, each refusal beside something that works.

#[path = "view/lab.rs"]
mod lab;

use std::fs;

use lab::{as_command, both, grant, read, write};
use rustix::io::Errno;
use stockade_confine::view::Access;
use stockade_types::Enforcement;

#[test]
fn what_is_granted_is_there_and_nothing_else() {
    both(|lab| {
        let plan = lab.plan();
        lab.put("file", "hello");
        fs::create_dir(lab.dir.join("elsewhere")).unwrap();
        fs::write(lab.dir.join("elsewhere/secret"), "s").unwrap();
        lab.sandbox(&plan, |view| {
            assert_eq!((view.mounts(), view.hidden()), (&Enforcement::Enforced, &Enforcement::Enforced));
            println!("{:#?}\n{}", view.landlock_paths(), fs::read_to_string("/proc/self/mountinfo").unwrap());
            println!("{:?}", view.notes());
            as_command(|| {
                assert_eq!(fs::read_to_string(lab.work().join("file")).unwrap(), "hello");
                assert_eq!(write(lab.work().join("new")), Ok(()));
            });
        });
    });
}
