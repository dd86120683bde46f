variable "dcs" {
  type    = list(string)
  default = ["dc1", 2]
}

job "lang-variable-list" {
  datacenters = var.dcs

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
