variable "all" {
  type    = bool
  default = "true"
}

job "lang-variable-bool" {
  all_at_once = var.all
  meta {
    text = "${var.all}"
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
