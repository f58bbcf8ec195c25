//! Rotation, retention, compression, and what a crash leaves.

use std::io::Read as _;

use super::*;

fn rotation() -> Rotation {
    Rotation { max_bytes: 20, max_age: None, keep: 2, compress: false }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045 + seconds)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_that_would_grow_too_large_is_put_aside_and_the_oldest_are_removed() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("flows.ndjson");
    let mut file = LogFile::open(&path, rotation()).unwrap();
    for (second, rotated) in [(0, false), (1, false), (2, true), (3, false), (4, true), (4, false), (4, true)] {
        assert_eq!(file.append(format!("line {second:04}\n").as_bytes(), at(second)).unwrap(), rotated, "{second}");
    }
    // Not one of ours.
    fs::write(home.path().join("flows-old.ndjson"), "x").unwrap();
    tidy(&path, &rotation()).unwrap();
    assert_eq!(
        names(home.path()),
        ["flows-20260102T030409.000Z.ndjson", "flows-20260102T030409.001Z.ndjson", "flows-old.ndjson", "flows.ndjson"]
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "line 0004\n");
    let aside = fs::read_to_string(home.path().join("flows-20260102T030409.000Z.ndjson")).unwrap();
    assert_eq!(aside, "line 0002\nline 0003\n");
}

#[test]
fn a_file_that_is_too_old_is_put_aside() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("flows");
    let rotation = Rotation { max_age: Some(Duration::from_secs(60)), max_bytes: 1000, ..rotation() };
    let mut file = LogFile::open(&path, rotation).unwrap();
    let now = SystemTime::now();
    assert!(!file.append(b"a\n", now).unwrap());
    assert!(!file.append(b"b\n", now + Duration::from_secs(50)).unwrap());
    assert!(file.append(b"c\n", now + Duration::from_secs(61)).unwrap());
    assert!(!file.append(b"d\n", now + Duration::from_secs(90)).unwrap());
    // A clock that steps back makes no file too old.
    assert!(!file.append(b"e\n", now - Duration::from_secs(900)).unwrap());
    assert_eq!(names(home.path()).len(), 2);
    assert_eq!(fs::read_to_string(&path).unwrap(), "c\nd\ne\n");
}

#[test]
fn rotated_files_are_compressed_and_what_was_left_half_done_is_done_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("flows.ndjson");
    let rotation = Rotation { compress: true, ..rotation() };
    let old = home.path().join("flows-20260102T030405.678Z.ndjson");
    fs::write(&old, "first\n").unwrap();
    fs::write(home.path().join("flows-20260102T030405.678Z.ndjson.gz.part"), "half").unwrap();
    tidy(&path, &rotation).unwrap();
    assert_eq!(names(home.path()), ["flows-20260102T030405.678Z.ndjson.gz"]);
    let mut text = String::new();
    let file = File::open(home.path().join("flows-20260102T030405.678Z.ndjson.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    assert_eq!(text, "first\n");
    // Compressed ones count and go, too.
    let keep_none = Rotation { keep: 0, ..rotation };
    tidy(&path, &keep_none).unwrap();
    assert!(names(home.path()).is_empty());
}

#[test]
fn a_line_that_a_crash_has_cut_is_taken_back_wherever_it_was_cut() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("flows.ndjson");
    let whole = b"{\"a\":1}\n{\"b\":2}\n";
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut file = LogFile::open(&path, Rotation { max_bytes: 1000, ..rotation() }).unwrap();
        file.append(b"new\n", at(0)).unwrap();
        let kept = cut / 8 * 8;
        let expected = [&whole[..kept], b"new\n"].concat();
        assert_eq!(fs::read(&path).unwrap(), expected, "cut at {cut}");
    }
}

#[test]
fn a_file_that_was_moved_is_noticed() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("flows.ndjson");
    let file = LogFile::open(&path, rotation()).unwrap();
    assert!(file.is_in_place());
    fs::rename(&path, home.path().join("moved")).unwrap();
    assert!(!file.is_in_place());
    fs::write(&path, "").unwrap();
    assert!(!file.is_in_place());
}
