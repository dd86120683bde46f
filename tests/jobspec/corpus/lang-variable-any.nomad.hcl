variable "x" {
  type    = any
  default = { a = [1, "two", true] }
}

job "lang-variable-any" {
  meta {
    x = jsonencode(var.x)
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
