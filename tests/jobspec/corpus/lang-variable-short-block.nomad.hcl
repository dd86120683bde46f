variables {
  owner = "team-b"
  count = 3
}

job "lang-variable-short-block" {
  meta {
    owner = var.owner
    next  = var.count + 1
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
