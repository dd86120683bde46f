job "job-meta-block" {
  meta {
    owner = "team-a"
    size  = 3
    beta  = true
  }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
