locals {
  people = [{ name = "Ada" }, { name = "Bob" }]
  map    = { a = 1, b = 2 }
  list   = ["x", "y"]
}

job "lang-splat-and-index" {
  meta {
    names  = join(",", local.people[*].name)
    second = local.people[1].name
    attr   = join(",", local.people.*.name)
    key    = local.map["b"]
    legacy = local.list.0
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
