job "job-meta-attribute" {
  meta = {
    "app.kubernetes.io/name" = "shop"
    owner                    = "team-a"
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
