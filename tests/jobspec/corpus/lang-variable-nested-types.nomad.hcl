variable "envs" {
  type = map(object({ cpu = number, tags = set(string) }))
  default = {
    prod = { cpu = 500, tags = ["x", "x"] }
    test = { cpu = "100", tags = [] }
  }
}

job "lang-variable-nested-types" {
  meta {
    envs = jsonencode(var.envs)
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
