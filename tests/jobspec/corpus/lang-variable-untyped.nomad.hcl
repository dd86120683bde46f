variable "a" {
  default = "x"
}

variable "b" {
  default = 3
}

variable "c" {
  default = ["l"]
}

job "lang-variable-untyped" {
  meta {
    all = jsonencode([var.a, var.b, var.c])
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
