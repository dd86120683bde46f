variable "pair" {
  type    = tuple([string, number])
  default = [1, "2"]
}

job "lang-variable-tuple" {
  meta {
    pair = jsonencode(var.pair)
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
