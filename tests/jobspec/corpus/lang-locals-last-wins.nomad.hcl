locals {
  x = "first"
}

locals {
  x = "last"
}

job "lang-locals-last-wins" {
  meta {
    x = local.x
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
