variable "tags" {
  type    = set(string)
  default = ["b", "a", "b"]
}

job "lang-variable-set" {
  datacenters = var.tags

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
