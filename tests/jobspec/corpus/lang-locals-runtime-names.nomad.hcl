locals {
  addr = "http://${NOMAD_ADDR_http}/"
}

job "lang-locals-runtime-names" {
  meta {
    addr = local.addr
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
