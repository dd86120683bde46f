#[test]
fn smoke() {
    for file in std::fs::read_dir("/work/shared/jobs").unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match herder::jobspec::parse(&herder::jobspec::Source { name: &name, text: &text }, &Default::default()) {
            Ok(mut p) => {
                for w in &p.warnings { println!("W {w}"); }
                println!("{:?}", herder::jobspec::canonicalize(&mut p.job, &Default::default()));
                let once = p.job.clone();
                herder::jobspec::canonicalize(&mut p.job, &Default::default());
                assert_eq!(once, p.job);
                println!("{name} OK {}", serde_json::to_string(&p.job).unwrap());
            }
            Err(e) => println!("{name} ERR\n{e}\n{}", e.report(false)),
        }
    }
}
