locals {
  m = {}
}

job "lang-functions-types" {
  meta {
    a = can(local.m.nope)
    b = try(local.m.nope, "fallback")
    c = jsonencode(convert(["1", 2], list(number)))
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
