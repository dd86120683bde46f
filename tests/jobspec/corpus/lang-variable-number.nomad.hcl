variable "priority" {
  type    = number
  default = "70"
}

job "lang-variable-number" {
  priority = var.priority
  meta {
    half = var.priority / 4
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
