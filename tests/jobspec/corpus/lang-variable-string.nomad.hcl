variable "owner" {
  type        = string
  default     = "team-a"
  description = "Who is asked when it breaks"
}

job "lang-variable-string" {
  meta {
    owner = var.owner
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
