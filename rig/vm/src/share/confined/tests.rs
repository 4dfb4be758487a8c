use std::net::TcpListener;

use super::*;

/// A daemon in this folder that tries this; whether it was prevented.
fn tries(what: Attempt) -> (Confinement, bool) {
    let scratch = Scratch::new().unwrap();
    let folder = scratch.path().join("shared");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("inside"), "").unwrap();
    attempt(&folder, &scratch, what).unwrap()
}

#[test]
fn a_daemon_is_confined_and_says_how() {
    let confinement = check().unwrap();
    for layer in [Layer::Limits, Layer::Names] {
        assert!(confinement.layers.contains(&layer), "{confinement:?}");
    }
    let roots = [Layer::Namespaces, Layer::Chroot, Layer::Landlock];
    assert!(roots.iter().any(|root| confinement.layers.contains(root)), "{confinement:?}");
}

#[test]
fn a_stand_in_for_the_daemon_opens_no_file_outside_of_its_share() {
    let outside = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    for path in [outside.to_path_buf(), "/etc/passwd".into(), "/proc/self/environ".into()] {
        assert!(tries(Attempt::Open(path.clone())).1, "{}", path.display());
        assert!(tries(Attempt::OpenThroughProc(path.clone())).1, "{}", path.display());
    }
}

/// Else the test above would prove nothing.
#[test]
fn a_stand_in_for_the_daemon_opens_the_files_of_its_share() {
    let (confinement, prevented) = tries(Attempt::Open("inside".into()));
    assert!(!prevented, "{confinement:?}");
}

#[test]
fn a_stand_in_for_the_daemon_starts_no_program_and_reaches_no_network() {
    assert!(tries(Attempt::Start).1);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(tries(Attempt::Connect(port)).1);
}

/// Each root by itself, as on a host that refuses the better ones.
#[test]
fn every_root_keeps_a_daemon_in_its_share() {
    let outside = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    for root in Root::ALL {
        let scratch = Scratch::new().unwrap();
        let log = scratch.path().join("log");
        let folder = scratch.path().join("shared");
        fs::create_dir(&folder).unwrap();
        for (what, expected) in [
            (Attempt::Open(outside.to_path_buf()), true),
            (Attempt::OpenThroughProc(outside.to_path_buf()), true),
            (Attempt::Open(".".into()), false),
        ] {
            // Without Landlock a descriptor of the host's /proc leads out of a chroot.
            let leads_out = root == Root::Chroot && landlock_version() == 0;
            if leads_out && matches!(what, Attempt::OpenThroughProc(_)) {
                continue;
            }
            let folder = Folder { tag: "t".into(), path: folder.clone(), access: Access::ReadOnly };
            let shown = format!("{root:?}: {what:?}");
            let mut share =
                Share::start_as(&folder, scratch.path(), &log, Some(what), root).unwrap();
            match share.said().unwrap() {
                super::super::Said::Confined(_) => {}
                // A container that lets nobody have namespaces.
                super::super::Said::Refused(refusal) => {
                    eprintln!("not tested: {shown}: {}", refusal.reason);
                    continue;
                }
            }
            let status = share.child.wait_for(CHECK_LIMIT).unwrap().unwrap();
            let prevented = status.code() != Some(super::super::daemon::NOT_PREVENTED);
            assert_eq!(prevented, expected, "{shown}: {status}");
        }
    }
}

#[test]
fn a_refused_root_is_named_with_what_decides() {
    let reason = Root::Namespaces.why_not("EPERM");
    assert!(reason.contains("namespaces") && reason.contains("EPERM"), "{reason}");
}
