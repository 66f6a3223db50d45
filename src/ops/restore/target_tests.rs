//! Targets that are taken, left behind, or somebody else's.

use super::*;

fn marker(external: Vec<PathBuf>) -> Marker {
    Marker { backup: "b".into(), note: "n".into(), external_files: external, run: "r".into() }
}

#[test]
fn a_directory_that_is_being_filled_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let datadir = dir.path().join("data");
    let first = Target::claim(&datadir, false, &marker(vec![])).unwrap();
    fs::write(datadir.join("ibdata1"), b"half").unwrap();
    let second = Target::claim(&datadir, true, &marker(vec![])).unwrap_err();
    assert_eq!(second.kind, ErrorKind::TargetInUse);
    assert!(datadir.join("ibdata1").exists() && datadir.join(MARKER).exists());
    drop(first);
    Target::claim(&datadir, true, &marker(vec![])).unwrap();
}

#[test]
fn one_that_another_run_took_over_is_not_completed() {
    let dir = tempfile::tempdir().unwrap();
    let first = Target::claim(dir.path(), false, &marker(vec![])).unwrap();
    // Where locks do not reach.
    first.mark(&Marker { run: "another".into(), ..marker(vec![]) }).unwrap();
    assert_eq!(first.complete(None).unwrap_err().kind, ErrorKind::TargetInUse);
    assert!(dir.path().join(MARKER).exists());
}

#[test]
fn files_outside_that_it_did_not_make_are_not_called_its_own() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mine, theirs) = (elsewhere.path().join("a.ibd"), elsewhere.path().join("b.ibd"));
    let later = elsewhere.path().join("c.ibd");
    let datadir = dir.path().join("data");
    let target = Target::claim(&datadir, false, &marker(vec![mine.clone(), theirs.clone(), later])).unwrap();
    target.create_file(&mine, 1).unwrap();
    fs::write(&theirs, b"theirs").unwrap();
    target.create_file(&theirs, 1).unwrap_err();
    drop(target);
    assert_eq!(marked_files(&datadir), std::slice::from_ref(&mine));
    Target::claim(&datadir, true, &marker(vec![])).unwrap();
    assert!(theirs.exists() && !mine.exists());
}

#[test]
fn a_link_below_the_directory_is_not_followed() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::claim(&dir.path().join("data"), false, &marker(vec![])).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), target.datadir().join("db")).unwrap();
    assert_eq!(target.create_file(&target.datadir().join("db/t.ibd"), 1).unwrap_err().kind, ErrorKind::LocalIo);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn foreign_files_are_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), b"x").unwrap();
    let refused = Target::claim(dir.path(), true, &marker(vec![])).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::TargetNotEmpty);
    assert!(dir.path().join("precious").exists());
    assert!(!dir.path().join(MARKER).exists());
}

#[test]
fn remains_need_the_option_and_take_their_external_files_along() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let external = elsewhere.path().join("t.ibd");
    let datadir = dir.path().join("data");
    let target = Target::claim(&datadir, false, &marker(vec![external.clone()])).unwrap();
    fs::write(target.datadir().join("ibdata1"), b"half").unwrap();
    fs::write(&external, b"half").unwrap();
    drop(target);

    let refused = Target::claim(&datadir, false, &marker(vec![])).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::TargetNotEmpty);
    assert!(refused.to_string().contains("--overwrite-incomplete"));

    let target = Target::claim(&datadir, true, &marker(vec![])).unwrap();
    assert!(!target.datadir().join("ibdata1").exists());
    assert!(!external.exists());
    target.complete(None).unwrap();
    assert!(!datadir.join(MARKER).exists());
}

#[test]
fn older_systems_do_not_tell_of_writes_that_failed() {
    for (release, tells) in [
        ("4.18.0-553.el8_10.x86_64", false),
        ("5.7.19", false),
        ("5.8.0-rc1", true),
        ("5.15.0-113-generic", true),
        ("6.1.0-18-amd64", true),
        ("10.0", true),
        ("", false),
    ] {
        assert_eq!(sync_tells_of_failures(release), tells, "{release}");
    }
}

#[test]
fn every_file_system_that_is_written_to_is_watched_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::claim(&dir.path().join("data"), false, &marker(vec![])).unwrap();
    let watched = |target: &Target| target.file_systems.lock().unwrap().keys().copied().collect::<Vec<_>>();
    let device = fs::metadata(target.datadir()).unwrap().dev();
    assert_eq!(watched(&target), [device]);
    target.create_file(&target.datadir().join("db/t.ibd"), 16384).unwrap();
    assert_eq!(watched(&target), [device], "one of each is enough");
    target.watch(File::open("/proc/self/status").unwrap(), Path::new("status")).unwrap();
    assert_eq!(watched(&target).len(), 2);
}

#[test]
fn a_marker_that_is_a_link_names_no_files_to_remove() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let precious = elsewhere.path().join("precious");
    fs::write(&precious, b"x").unwrap();
    let planted = elsewhere.path().join("planted");
    fs::write(&planted, serde_json::to_vec(&marker(vec![precious.clone()])).unwrap()).unwrap();
    std::os::unix::fs::symlink(&planted, dir.path().join(MARKER)).unwrap();
    assert!(marked_files(dir.path()).is_empty());
    let before = fs::read(&planted).unwrap();
    Target::claim(dir.path(), true, &marker(vec![])).unwrap();
    assert!(precious.exists());
    assert_eq!(fs::read(&planted).unwrap(), before, "it is not written through");
    assert!(!dir.path().join(MARKER).is_symlink());
}
