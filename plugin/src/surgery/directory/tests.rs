use super::*;

/// A directory with a source checkpoint, where outputs go beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("source")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn create(&self, force: bool) -> Result<Partial> {
        Partial::create(&self.path("out"), &self.path("source"), force)
    }

    fn write(&self, content: &str) {
        let partial = self.create(true).unwrap();
        fs::write(partial.path().join(PLAN_FILE), content).unwrap();
        partial.finish().unwrap();
    }

    fn content(&self) -> String {
        fs::read_to_string(self.path("out").join(PLAN_FILE)).unwrap()
    }

    fn listing(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn the_result_appears_only_when_finished() {
    let place = Place::new();
    let partial = place.create(false).unwrap();
    fs::write(partial.path().join(PLAN_FILE), "new").unwrap();
    assert_eq!(place.listing(), [".out.partial", "source"]);
    partial.finish().unwrap();
    assert_eq!(place.listing(), ["out", "source"]);
    assert_eq!(
        fs::read_dir(place.path("out")).unwrap().count(),
        1,
        "the marker is gone"
    );
}

#[test]
fn an_abandoned_result_leaves_nothing() {
    let place = Place::new();
    let partial = place.create(false).unwrap();
    fs::write(partial.path().join("model.safetensors"), "half").unwrap();
    drop(partial);
    assert_eq!(place.listing(), ["source"]);
}

#[test]
fn an_empty_directory_may_be_filled() {
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    let partial = place.create(false).unwrap();
    fs::write(partial.path().join(PLAN_FILE), "new").unwrap();
    partial.finish().unwrap();
    assert_eq!(place.content(), "new");
}

#[test]
fn only_force_replaces_and_the_old_one_goes() {
    let place = Place::new();
    place.write("old");
    let error = place.create(false).unwrap_err();
    assert!(matches!(error, Error::OutputExists { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--force"));
    assert_eq!(
        (place.content().as_str(), place.listing().len()),
        ("old", 2)
    );
    place.write("new");
    assert_eq!(
        (place.content().as_str(), place.listing().len()),
        ("new", 2)
    );
}

#[test]
fn force_replaces_nothing_but_a_pruned_checkpoint() {
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    fs::write(place.path("out").join("thesis.tex"), "").unwrap();
    assert!(matches!(
        place.create(true),
        Err(Error::NotReplaceable {
            found: "another directory",
            ..
        })
    ));

    let source = place.path("source");
    fs::write(source.join(PLAN_FILE), "").unwrap();
    let itself = Partial::create(&source, &source, true);
    assert!(matches!(
        itself,
        Err(Error::NotReplaceable {
            found: "the model itself",
            ..
        })
    ));

    let file = place.path("file");
    fs::write(&file, "").unwrap();
    let over_a_file = Partial::create(&file, &source, true);
    assert!(matches!(
        over_a_file,
        Err(Error::NotReplaceable {
            found: "a file",
            ..
        })
    ));
    assert!(matches!(
        Partial::create(Path::new("/"), &source, true),
        Err(Error::NotReplaceable { .. })
    ));
    assert_eq!(place.listing(), ["file", "out", "source"]);
}

#[test]
fn two_runs_do_not_write_one_directory() {
    let place = Place::new();
    let first = place.create(false).unwrap();
    assert!(matches!(place.create(false), Err(Error::OutputBusy { .. })));
    drop(first);
    place.create(false).unwrap();
}

#[test]
fn what_a_killed_run_left_is_removed_and_nothing_else() {
    let place = Place::new();
    let stale = place.path(".out.partial");
    fs::create_dir(&stale).unwrap();
    drop(place.create(false).unwrap());

    fs::create_dir(&stale).unwrap();
    fs::write(stale.join(MARKER), "").unwrap();
    fs::write(stale.join("model.safetensors"), "half").unwrap();
    let partial = place.create(false).unwrap();
    assert!(!stale.join("model.safetensors").exists());
    drop(partial);

    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("mine"), "").unwrap();
    assert!(matches!(
        place.create(false),
        Err(Error::NotReplaceable { .. })
    ));
    assert!(stale.join("mine").exists());
}

#[test]
fn a_run_killed_between_the_renames_is_undone() {
    let place = Place::new();
    place.write("old");
    fs::write(place.path("out").join(MARKER), "").unwrap();
    fs::rename(place.path("out"), place.path(".out.replaced")).unwrap();
    assert!(matches!(
        place.create(false),
        Err(Error::OutputExists { .. })
    ));
    assert_eq!(
        (place.content().as_str(), place.listing().len()),
        ("old", 2)
    );
    assert!(!place.path("out").join(MARKER).exists());
}

#[test]
fn a_run_killed_after_the_renames_is_completed() {
    let place = Place::new();
    place.write("new");
    fs::create_dir(place.path(".out.replaced")).unwrap();
    fs::write(place.path(".out.replaced").join(MARKER), "").unwrap();
    fs::write(place.path(".out.replaced").join(PLAN_FILE), "old").unwrap();
    assert!(matches!(
        place.create(false),
        Err(Error::OutputExists { .. })
    ));
    assert_eq!(
        (place.content().as_str(), place.listing().len()),
        ("new", 2)
    );
}
