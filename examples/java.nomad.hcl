# A jar that is downloaded before it runs. Give it an address that your nodes can reach:
#
#   herder job run -var jar_url=http://files.example/hello.jar examples/java.nomad.hcl

variable "jar_url" {
  type        = string
  default     = "http://127.0.0.1:8000/hello.jar"
  description = "Where the jar is."

  validation {
    condition     = regex_replace(var.jar_url, "^https?://.+[.]jar$", "") == ""
    error_message = "The address must be an http or https address of a jar."
  }
}

locals {
  parts = split("/", var.jar_url)
  file  = element(local.parts, length(local.parts) - 1)
}

job "hello-jar" {
  group "hello" {
    network {
      port "http" {}
    }

    task "hello" {
      driver = "java"

      artifact {
        source = var.jar_url
      }

      config {
        jar_path    = "local/${local.file}"
        jvm_options = ["-Xmx64m"]
        args        = ["${NOMAD_PORT_http}"]
      }

      resources {
        cpu    = 200
        memory = 160
      }
    }
  }
}
