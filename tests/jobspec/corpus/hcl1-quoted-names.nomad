"job" "hcl1-quoted-names" {
  "type" = "batch"
  meta {
    "team.name" = "a"
    plain = "b"
  }
  group "web" {
    task "main" {
      driver = "raw_exec"
      config {
        "command" = "/bin/true"
      }
    }
  }
}
