variable "size" {
  type    = string
  default = "large"

  validation {
    condition     = contains(["small", "large"], var.size)
    error_message = "The size must be small or large."
  }
}

job "lang-variable-validated" {
  meta {
    size = var.size
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
